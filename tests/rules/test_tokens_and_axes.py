"""Which axes of the output are the batch: tokens with an error of their own, images and numbers with one error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.models import (
    CASES,
    DIRECT,
    Stepwise,
    floats,
    labels,
)
from tests.cases.small import ROUNDING
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError


def test_every_token_is_sent_its_own_error_and_no_other() -> None:
    case = CASES["decoder"]
    net = case.wrapped().double()
    output = net(case.x)
    (error,) = torch.autograd.grad(case.loss(output, case.y), output)
    sent = torch.autograd.grad(case.loss(net(case.x), case.y), list(net.model.blocks[1].parameters()))
    twin: Any = case.model().double()
    h = twin.blocks[0](twin.embed(case.x) + twin.place(torch.arange(5)))
    h = twin.blocks[1](h.detach())
    F = net.feedback_matrices["blocks.1"]
    assert F.shape == (8, 11)
    signal = torch.stack([torch.stack([F @ e for e in sequence]) for sequence in error])
    expected = torch.autograd.grad(h, list(twin.blocks[1].parameters()), signal)
    for one, other in zip(sent, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=ROUNDING, atol=ROUNDING)


def test_a_whole_image_of_outputs_is_one_error() -> None:
    """An output [batch, channel, height, width] has the batch axis alone, which no default could know."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 3, padding=1))
    net = fa.DFA(model, points=("1",), batch_dims=1)
    x = floats(5, 1, 4, 4)
    assert net(x).shape == (5, 3, 4, 4)
    assert net.feedback_matrices["1"].shape == (2 * 16, 3 * 16)
    check = fa.check_rule(net, lambda out, y: functional.cross_entropy(out, y), x, labels(5, 4, 4))
    assert check.worst < ROUNDING
    net.double()
    h = model[1](model[0](x.double()))
    output = net(x.double())
    (e,) = torch.autograd.grad(functional.cross_entropy(output, labels(5, 4, 4)), output, retain_graph=True)
    functional.cross_entropy(output, labels(5, 4, 4)).backward()
    found = model[0].get_parameter("weight").grad
    F = net.feedback_matrices["1"].reshape(2, 4, 4, 3, 4, 4)
    (expected,) = torch.autograd.grad(h, model[0].get_parameter("weight"), torch.einsum("hijcuv,bcuv->bhij", F, e))
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("rule", sorted(DIRECT))
def test_an_output_without_a_class_axis(rule: str) -> None:
    """One number a sample, [batch], is one output."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))
    net = DIRECT[rule](model, points=("1",), batch_dims=1)
    assert net(floats(5, 4)).shape == (5,)
    check = fa.check_rule(net, functional.mse_loss, floats(5, 4), floats(5))
    assert check.worst < ROUNDING


@pytest.mark.parametrize("batch_dims", [0, -1, 1.5])
def test_batch_dims_must_count_axes(batch_dims: Any) -> None:
    with pytest.raises(ArgumentError, match=f"batch_dims must be a whole number of at least 1, got {batch_dims}"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), batch_dims=batch_dims)


def test_outputs_at_every_step_and_a_cell_need_batch_dims() -> None:
    with pytest.raises(FeedbackShapeError, match=r"\(4, 6\), but the output has .* \(4, 3\); .*batch_dims="):
        fa.DFA(Stepwise(), points=("cell",))(floats(4, 3, 5))
