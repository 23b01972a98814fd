"""Rules with memory: a pass sends what was known when its forward pass began, and learns only what is finite."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.small import assert_same, batch, gradients, left_by_backward, network
from torch.nn import functional

import feedalign as fa

RULES: list[Any] = [
    (fa.KolenPollack, {}),
    (fa.DirectKolenPollack, {}),
    (fa.ConditionedDFA, {"every": 1, "decay": 0.5}),
    (fa.DirectKolenPollack, {"recompute": True}),
    (fa.ConditionedDFA, {"every": 1, "decay": 0.5, "recompute": True}),
]


def taught(rule: Any, options: Any) -> Any:
    """Return a net whose memory is no longer that of the start."""
    net = rule(network(), **options)
    for seed in range(3):
        gradients(net, *batch(seed=seed))
    return net


def memory(net: Any) -> dict[str, torch.Tensor]:
    """Return everything that the rule holds, besides the number of its backward passes."""
    return {
        name: value.clone()
        for name, value in net.state_dict().items()
        if not name.startswith("model.") and not name.endswith("passes")
    }


@pytest.mark.parametrize(("rule", "options"), RULES)
def test_of_two_forward_passes_each_sends_what_was_known_when_it_began(rule: Any, options: Any) -> None:
    """Though the first backward pass has changed the memory before the second one."""
    (x, y), (u, v) = batch(seed=8), batch(seed=9)
    net = taught(rule, options)
    before = memory(net)
    first, second = (gradients(copy.deepcopy(net), *data) for data in ((x, y), (u, v)))
    losses = functional.cross_entropy(net(x), y), functional.cross_entropy(net(u), v)
    for loss, expected in zip(losses, (first, second), strict=True):
        net.zero_grad()
        loss.backward()
        assert_same(left_by_backward(net), expected)
    assert any(not torch.equal(value, before[name]) for name, value in memory(net).items())
    assert any(not torch.equal(second[name], gradient) for name, gradient in gradients(net, u, v).items())


@pytest.mark.parametrize(("rule", "options"), RULES)
def test_of_two_forward_passes_and_one_backward_pass_both_send_what_was_known_before(rule: Any, options: Any) -> None:
    """The gradients of the sum are the sum of the gradients, each with the memory of before."""
    (x, y), (u, v) = batch(seed=8), batch(seed=9)
    net = taught(rule, options)
    parts = [gradients(copy.deepcopy(net), *data) for data in ((x, y), (u, v))]
    net.zero_grad()
    (functional.cross_entropy(net(x), y) + functional.cross_entropy(net(u), v)).backward()
    summed = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    assert_same(left_by_backward(net), summed, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(("rule", "options"), RULES)
def test_a_batch_that_is_not_finite_leaves_the_memory_as_it_was(rule: Any, options: Any, value: float) -> None:
    """A loop that skips the batch keeps its weights, and goes on as if the batch had not been."""
    net = taught(rule, options)
    twin = copy.deepcopy(net)
    before = memory(net)
    x, y = batch(seed=8)
    net.zero_grad()
    (value * functional.cross_entropy(net(x), y)).backward()
    if rule is fa.ConditionedDFA:  # P is renewed from the same average: the same but for rounding
        assert_same(memory(net), before, rtol=1e-12, atol=1e-14)
    else:
        assert_same(memory(net), before)
    expected = gradients(twin, *batch(seed=9))
    assert_same(gradients(net, *batch(seed=9)), expected, rtol=1e-11, atol=1e-13)
    assert all(gradient.isfinite().all() for gradient in expected.values())


@pytest.mark.parametrize(("rule", "options"), RULES)
def test_an_input_that_is_not_finite_leaves_the_memory_as_it_was(rule: Any, options: Any) -> None:
    net = taught(rule, options)
    before = memory(net)
    x, y = batch(seed=8)
    x[0, 0] = float("nan")
    gradients(net, x, y)
    assert_same(memory(net), before, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("rule", "options"), RULES)
def test_an_empty_batch_leaves_the_memory_as_it_was(rule: Any, options: Any) -> None:
    """Not even the decay of learned feedback takes place."""
    net = taught(rule, options)
    before = memory(net)
    x, y = batch()
    net.zero_grad()
    functional.cross_entropy(net(x[:0]), y[:0], reduction="sum").backward()
    assert_same(memory(net), before)
