"""Precision: autocast, gradient scalers, and batches that overflow."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.small import FIXED, assert_same, batch, gradients, network
from torch import nn
from torch.nn import functional

import feedalign as fa


@pytest.mark.parametrize("rule", FIXED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gradient_scaler_changes_no_update(rule: Any, dtype: torch.dtype) -> None:
    """A power of two scales every number exactly, as long as none leaves the range."""
    states = []
    for scale in (1.0, 2.0**8):
        net = rule(network().float())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        for step in range(3):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = functional.cross_entropy(net(x.float()), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == scale
        states.append(net.state_dict())
    # Below 6e-5 half precision loses bits that a scaled gradient keeps.
    assert_same(*states, rtol=0, atol=1e-6 if dtype == torch.float16 else 0)


@pytest.mark.parametrize("rule", FIXED)
def test_an_overflow_skips_the_step_and_leaves_the_rule_usable(rule: Any) -> None:
    net = rule(network())
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=float("inf"))
    x, y = batch()
    scaler.scale(functional.cross_entropy(net(x), y)).backward()
    scaler.step(optimizer)
    assert_same(net.state_dict(), before)
    assert_same(gradients(net, x, y), gradients(rule(network()), x, y))


def test_half_precision_outputs_carry_the_error_in_the_feedbacks_precision() -> None:
    net = fa.DFA(fa.networks.MLP([4, 6, 5, 3], seed=7))
    x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    functional.cross_entropy(net(x), y).backward()
    exact = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = functional.cross_entropy(net(x), y)
    loss.backward()
    for p, gradient in zip(net.parameters(), exact, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, gradient, rtol=0.05, atol=0.01)  # bfloat16 keeps 8 bits


def test_feedback_has_the_precision_of_the_first_parameter_that_has_one() -> None:
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)).double()
    model.register_parameter("counts", nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False))
    assert next(model.parameters()).dtype == torch.int8
    assert fa.DFA(model).feedback_matrices["1"].dtype == torch.float64
