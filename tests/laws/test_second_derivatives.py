"""A rule's gradient is no derivative of the loss: taken once it is the rule's, and twice it is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, FIXED_AND_LEARNED, assert_same, batch, gradients, left_by_backward, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError


def transposed() -> nn.Module:
    """Return a network with a layer whose backward pass is not written out."""
    torch.manual_seed(0)
    layers = nn.Conv1d(1, 4, 2), nn.Tanh(), nn.ConvTranspose1d(4, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(10, 3)
    return nn.Sequential(nn.Unflatten(1, (1, 5)), *layers).double()


def dense(rule: Any) -> Callable[[], Any]:
    return lambda: rule(network())


WAYS: dict[str, Callable[[], Any]] = {
    **{rule.__name__: dense(rule) for rule in (*FIXED_AND_LEARNED, fa.DRTP, fa.SignSymmetry)},
    "recomputed": lambda: fa.DFA(network(), recompute=True),
    "FA, a layer without a formula of its backward pass": lambda: fa.FA(transposed()),
}


def penalty(net: nn.Module, constant: bool) -> Tensor:
    x, y = batch()
    x.requires_grad_()
    output = net(x)
    loss = output.sum() if constant else functional.cross_entropy(output, y)
    (of_input,) = torch.autograd.grad(loss, x, create_graph=True)
    return of_input.square().sum()


# Torch's own warning that create_graph with backward() may keep memory.
@pytest.mark.filterwarnings("ignore:.*create_graph=True:UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_the_first_derivative_is_the_rules(way: str) -> None:
    x, y = batch()
    net = WAYS[way]()
    functional.cross_entropy(net(x), y).backward(create_graph=True)
    assert_same({name: each.detach() for name, each in left_by_backward(net).items()}, gradients(WAYS[way](), x, y))


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_second_derivative_is_refused(way: str, constant: bool) -> None:
    with pytest.raises(ArgumentError, match=r"gradient of a gradient.*within net\.backprop\(\)"):
        penalty(WAYS[way](), constant).backward()


def test_a_large_signal_refuses_as_well() -> None:
    net = fa.DFA(network(5, 2**15, 3))
    x, y = batch()
    assert len(x) * 2**15 > 2**18  # the signal waits for the turn of its block
    x.requires_grad_()
    (of_input,) = torch.autograd.grad(functional.cross_entropy(net(x), y), x, create_graph=True)
    with pytest.raises(ArgumentError, match="gradient of a gradient"):
        of_input.sum().backward()


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_within_backprop_a_gradient_penalty_is_that_of_the_bare_model(way: str, constant: bool) -> None:
    net = WAYS[way]()
    with net.backprop():
        penalty(net, constant).backward()
    bare = WAYS[way]().unwrap()
    penalty(bare, constant).backward()
    assert_same(left_by_backward(net), left_by_backward(bare), **EXACT)
