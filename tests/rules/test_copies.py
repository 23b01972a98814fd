"""A wrapped model is copied, but not pickled; its state is saved instead."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from tests.cases.small import FIXED_AND_LEARNED, assert_same, hooks_on, left_by_backward, network, trained
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_a_deep_copy_shares_nothing_and_learns_the_same(rule: Any) -> None:
    net = rule(network())
    trained(net, steps=1)
    twin = copy.deepcopy(net)
    before = copy.deepcopy(net.state_dict())
    after = trained(twin)
    assert_same(net.state_dict(), before)
    assert_same(trained(net), after)


def test_a_deep_copy_learns_by_itself() -> None:
    net = fa.DFA(fa.networks.MLP([4, 6, 5, 3], seed=7))
    twin = copy.deepcopy(net)
    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    functional.cross_entropy(net(x), y).backward()
    assert all(p.grad is None for p in twin.parameters())
    functional.cross_entropy(twin(x), y).backward()
    assert_same(left_by_backward(net), left_by_backward(twin))
    assert hooks_on(twin.unwrap()) == []
    net.zero_grad()
    functional.cross_entropy(net(x), y).backward()
    assert_same(left_by_backward(net), left_by_backward(twin))


@pytest.mark.parametrize("rule", [*FIXED_AND_LEARNED, fa.Backprop])
@pytest.mark.parametrize("save", [pickle.dumps, lambda net: torch.save(net, io.BytesIO())])
def test_pickling_is_refused_and_the_state_is_the_way(rule: Any, save: Any) -> None:
    net = rule(network())
    for wrapped in (net, net.model) if rule is not fa.Backprop else (net,):
        with pytest.raises(ArgumentError, match=r"cannot be pickled.*net\.state_dict\(\)"):
            save(wrapped)
    state = io.BytesIO()
    torch.save(net.state_dict(), state)
    state.seek(0)
    other = rule(network(seed=1), seed=1)
    other.load_state_dict(torch.load(state))
    assert_same(trained(other), trained(net))
    save(net.unwrap())


def test_a_shallow_copy_shares_everything() -> None:
    net = fa.DFA(network())
    other = copy.copy(net)
    assert type(other) is type(net)
    assert other.model is net.model
    assert other.feedback is net.feedback
