"""The bare model: what it is while it is wrapped, what hooks may stand on it, and that unwrapping leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import FIXED_AND_LEARNED, assert_same, batch, gradients, hooks_on, network
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import PointsError


@pytest.mark.parametrize("rule", [*FIXED_AND_LEARNED, fa.Frozen])
def test_unwrapped_the_model_learns_by_backprop_and_bears_no_hook(rule: Any) -> None:
    model, (x, y) = network(), batch()
    keys = list(model.state_dict())
    net = rule(model)
    gradients(net, x, y)
    model.zero_grad()
    assert net.unwrap() is model
    assert hooks_on(model) == []
    assert list(model.state_dict()) == keys
    assert_same(gradients(model, x, y), gradients(network(), x, y))


def test_unwrapping_gives_the_model_back_without_hooks() -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    assert fa.DFA(model).unwrap() is model
    assert hooks_on(model) == []


def test_hooks_from_before_are_in_the_block_and_later_ones_behind_the_cut() -> None:
    model: Any = fa.networks.MLP([4, 6, 3], "relu")
    before, after = (nn.Parameter(torch.tensor(2.0)) for _ in range(2))
    model[1].register_forward_hook(lambda _module, _inputs, output: before * output)
    net = fa.DFA(model)
    model[1].register_forward_hook(lambda _module, _inputs, output: after * output)
    x, error = torch.randn(2, 4), torch.randn(2, 3)
    net(x).backward(error)
    activation = model[0](x).relu()
    signal = error @ net.feedback_matrices["1"].T
    torch.testing.assert_close(before.grad, (signal * activation).sum())
    torch.testing.assert_close(after.grad, (error @ model[2].weight * 2 * activation).sum())


@pytest.mark.parametrize("swapped", [False, True])
def test_two_rules_may_share_a_module_and_leave_it_in_any_order(swapped: bool) -> None:
    shared = nn.ReLU()
    first, second = (nn.Sequential(nn.Linear(4, 6), shared, nn.Linear(6, 3)) for _ in range(2))
    nets = [fa.DFA(first, seed=0), fa.DFA(second, seed=1)]
    x, error = torch.randn(5, 4), torch.randn(5, 3)
    if swapped:
        nets.reverse()
    nets[0].unwrap()
    nets[1](x).backward(error)
    bias: Any = nets[1].get_parameter("model.0.bias")
    signal = error @ nets[1].feedback_matrices["1"].T
    torch.testing.assert_close(bias.grad, (signal * (nets[1].get_submodule("model.0")(x) > 0)).sum(0))
    nets[1].unwrap()
    assert hooks_on(shared) == []


def test_a_forward_that_is_already_replaced_stays_so() -> None:
    model: Any = fa.networks.MLP([4, 6, 3], "relu")
    model[1].forward = functional.leaky_relu
    x, error = torch.randn(2, 4), torch.randn(2, 3)
    net = fa.DFA(model)
    net(x).backward(error)
    signal = error @ net.feedback_matrices["1"].T
    torch.testing.assert_close(model[0].bias.grad, (signal * torch.where(model[0](x) > 0, 1.0, 0.01)).sum(0))
    net.unwrap()
    assert model[1].forward is functional.leaky_relu


def test_the_bare_model_stays_what_it_was_while_wrapped() -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    functional.cross_entropy(model(x), y).backward()
    expected = model[0].weight.grad.clone()
    fa.DFA(model)
    model.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    assert torch.equal(model[0].weight.grad, expected)


def test_without_gradients_the_model_just_runs() -> None:
    net = fa.DFA(fa.networks.MLP([4, 6, 5, 3], seed=7))
    with torch.no_grad():
        assert not net(torch.ones(2, 4)).requires_grad
    assert net(torch.ones(2, 4)).requires_grad


def test_an_error_inside_the_model_leaves_the_rule_usable() -> None:
    net = fa.DFA(fa.networks.MLP([4, 6, 5, 3], seed=7))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        net(torch.ones(2, 9))
    net(torch.ones(2, 4)).sum().backward()


@pytest.mark.parametrize("rule", [fa.DFA, fa.ReadoutOnly])
def test_a_pass_in_which_no_point_ran_is_refused(rule: Any) -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    net = rule(model)
    model[1] = nn.Tanh()
    with pytest.raises(PointsError, match=r"point .1. was not reached, since another module stands.*wrap it again"):
        net(torch.randn(2, 4))
