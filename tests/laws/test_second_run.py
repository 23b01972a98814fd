"""`recompute=True`: the second run of the model is the first one again, and leaves no trace of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, batch, gradients, left_by_backward, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa


class Counts(nn.Module):
    """Multiplies by a buffer, and puts a new Tensor in the buffer's place in every run."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, h: Tensor) -> Tensor:
        scaled = self.scale * h
        self.scale = self.scale * 1.5
        return scaled


def with_counts() -> Any:
    first, act, *rest = network()
    return nn.Sequential(first, Counts(), act, *rest)


@pytest.mark.parametrize("rule", [fa.DFA, fa.DRTP, fa.DirectKolenPollack, fa.ConditionedDFA])
def test_a_buffer_that_a_module_assigns_anew_moves_once_a_step(rule: Any) -> None:
    """And the second run sees the buffer as the first run saw it, so the gradients are the kept ones."""
    results = []
    for recompute in (False, True):
        model = with_counts()
        net = rule(model, recompute=recompute, example_input=batch()[0])
        start = float(model[1].scale)  # drawing the feedback runs the model too
        found = [gradients(net, *batch(seed=step)) for step in range(3)]
        assert float(model[1].scale) == start * 1.5**3
        results.append({f"{step}.{name}": g for step, one in enumerate(found) for name, g in one.items()})
    assert_same(results[1], results[0], **EXACT)


def test_a_backward_pass_leaves_the_buffers_as_later_forward_passes_have_moved_them() -> None:
    model = with_counts()
    net = fa.DFA(model, recompute=True, example_input=batch()[0])
    start = float(model[1].scale)
    losses = [functional.cross_entropy(net(x), y) for x, y in (batch(seed=0), batch(seed=1))]
    for loss in losses:
        loss.backward()
        assert float(model[1].scale) == start * 1.5**2


@pytest.mark.parametrize("recompute", [False, True])
def test_an_input_changed_in_place_before_the_backward_pass_is_refused(recompute: bool) -> None:
    """Autograd refuses: the second run would see other numbers than the first one."""
    x, y = batch()
    loss = functional.cross_entropy(fa.DFA(network(), recompute=recompute)(x), y)
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_parameter_changed_in_place_before_the_backward_pass_is_refused() -> None:
    x, y = batch()
    net = fa.DFA(network(), recompute=True)
    loss = functional.cross_entropy(net(x), y)
    with torch.no_grad():
        net.get_parameter("model.0.bias").add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("training", [True, False])
def test_a_mode_switched_after_the_forward_pass_changes_no_gradient(training: bool) -> None:
    """The gradients are those of the mode of the forward pass; afterwards the mode is the one switched to."""
    x, y = batch()
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        layers = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)
        model = nn.Sequential(*layers).double()
        net = fa.DFA(model, recompute=recompute).train(training)
        torch.manual_seed(1)
        loss = functional.cross_entropy(net(x), y)
        net.train(not training)
        loss.backward()
        assert all(module.training is not training for module in net.modules())
        results.append({**left_by_backward(net), **dict(model.named_buffers())})
    assert_same(results[1], results[0], **EXACT)
