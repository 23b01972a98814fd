"""Measured descent: its limit for short steps is the cosine, and the net stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.alignment import descent
from feedalign.errors import ArgumentError


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 5, generator=generator, dtype=torch.float64), torch.arange(30) % 3


def test_for_short_steps_it_is_the_cosine_of_the_two_gradients() -> None:
    x, y = batch()
    net = fa.DFA(fa.networks.MLP([5, 8, 6, 3], seed=1), seed=2).double()
    gradients = []
    for scope in (torch.enable_grad(), net.backprop()):
        with scope:
            loss = functional.cross_entropy(net(x), y)
        parts = torch.autograd.grad(loss, list(net.model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    cosine = float(functional.cosine_similarity(gradients[0], gradients[1], dim=0))
    assert descent(net, functional.cross_entropy, x, y, lr=1e-6).ratio == pytest.approx(cosine, abs=1e-4)
    measured = descent(net, functional.cross_entropy, x, y, lr=0.5)
    assert measured.length == pytest.approx(0.5 * float(gradients[0].norm()))


def test_the_loss_changes_as_in_a_step_of_the_optimiser() -> None:
    x, y = batch()
    net = fa.DFA(fa.networks.MLP([5, 8, 3], seed=1), seed=2).double()
    expected = descent(net, functional.cross_entropy, x, y, lr=0.3)
    before = functional.cross_entropy(net(x), y)
    before.backward()
    torch.optim.SGD(net.parameters(), lr=0.3).step()
    after = functional.cross_entropy(net(x), y)
    assert expected.rule == pytest.approx(float((after - before).detach()), rel=1e-9)


def test_backprop_is_as_good_as_backprop() -> None:
    x, y = batch()
    net = fa.Backprop(fa.networks.MLP([5, 8, 3], seed=1)).double()
    assert descent(net, functional.cross_entropy, x, y, lr=0.1).ratio == pytest.approx(1.0)


def test_nothing_is_disturbed() -> None:
    x, y = batch()
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3)).double()
    net = fa.DirectKolenPollack(model, seed=2)
    net(x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    descent(net, functional.cross_entropy, x, y, lr=0.1)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(module.training for module in net.modules())


def test_bad_input() -> None:
    x, y = batch()
    net = fa.DFA(fa.networks.MLP([5, 8, 3], seed=1), seed=2).double()
    with pytest.raises(ArgumentError, match=r"lr must be a finite number above 0, got 0\.0"):
        descent(net, functional.cross_entropy, x, y, lr=0.0)
    with pytest.raises(ArgumentError, match="there is no step to compare"):
        descent(net, lambda output, _: 0 * output.sum(), x, y, lr=0.1)
