"""Recurrent models: cells that run once a step, and modules that run a whole sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.models import (
    CASES,
    Recurrent,
    floats,
)
from tests.cases.small import ROUNDING
from torch import Tensor, nn

import feedalign as fa
from feedalign.errors import FeedbackShapeError


def test_a_cell_is_sent_its_feedback_at_every_step_and_none_through_its_state() -> None:
    """W gets sum_t (F e) ⊙ (1 - h_t²) of each step alone: no error goes back in time."""
    case = CASES["rnn cell"]
    net = case.wrapped().double()
    x = case.x.double()
    output = net(x)
    loss = case.loss(output, case.y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    loss.backward()
    cell, h = net.model.cell, torch.zeros(4, 6, dtype=torch.float64)
    of_input, of_state = torch.zeros_like(cell.weight_ih), torch.zeros_like(cell.weight_hh)
    with torch.no_grad():
        for step in x.unbind(1):
            before, h = h, torch.tanh(step @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih + cell.bias_hh)
            delta = (error @ net.feedback_matrices["cell"].T) * (1 - h**2)
            of_input += delta.T @ step
            of_state += delta.T @ before
    torch.testing.assert_close(cell.weight_ih.grad, of_input, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(cell.weight_hh.grad, of_state, rtol=ROUNDING, atol=ROUNDING)


def test_within_a_recurrent_module_the_error_goes_back_in_time() -> None:
    """Of nn.RNN the sequence is the activation: each step has rows of F of its own, and backprop below it."""
    case = CASES["rnn"]
    net = case.wrapped().double()
    x = case.x.double()
    output = net(x)
    loss = case.loss(output, case.y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    loss.backward()
    twin: Any = case.model().double()
    sequence, _ = twin.memory(x)
    F = net.feedback_matrices["memory"].unflatten(0, (3, 6))
    (sequence * torch.einsum("bc,thc->bth", error, F)).sum().backward()
    for one, other in zip(net.model.memory.parameters(), twin.memory.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("time", [3, 4])
def test_a_recurrent_point_that_begins_with_time_is_refused(time: int) -> None:
    """Also where a batch of 4 hides it."""

    class TimeFirst(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            sequence, _ = self.memory(x.transpose(0, 1))
            out: Tensor = self.readout(sequence[-1])
            return out

    model = TimeFirst(nn.GRU)
    model.memory.batch_first = False
    message = "a GRU with batch_first=False" if time == 4 else r"the batch axes \(4,\); .*recurrent modules need"
    with pytest.raises(FeedbackShapeError, match=message):
        fa.DFA(model, points=("memory",))(floats(4, time, 5))
    assert [name for name, *_ in fa.validate(model, ("memory",), floats(4, time, 5)).problems] == ["memory"]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_the_last_state_of_a_recurrent_point_is_detached(kind: Any) -> None:
    class FromState(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            _, state = self.memory(x)
            out: Tensor = self.readout((state[0] if isinstance(state, tuple) else state)[-1])
            return out

    model = FromState(kind)
    net = fa.DFA(model, points=("memory",), feedback=fa.feedback.Gaussian())  # held in full, so that it can be zeroed
    net(floats(4, 3, 5)).sum().backward()
    assert model.memory.weight_ih_l0.grad.any()  # from the sequence, which is the activation
    with torch.no_grad():
        next(iter(net.feedback_matrices.values())).zero_()
    net.zero_grad()
    net(floats(4, 3, 5)).sum().backward()
    assert not model.memory.weight_ih_l0.grad.any()
    report = fa.validate(model, ("memory",), floats(4, 3, 5))
    assert [(name, "of which nothing reaches the output" in problem) for name, problem, _ in report.problems] == [
        ("memory", True)
    ]
