"""The models that people train: each learns under the rules, gives the outputs it gave, and comes back as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.cases.models import (
    CASES,
    DIRECT,
)
from tests.cases.outputs import MAKERS, flat
from tests.cases.small import ROUNDING, hooks_on

import feedalign as fa


@pytest.mark.parametrize("rule", sorted(DIRECT))
@pytest.mark.parametrize("name", CASES)
def test_every_gradient_is_the_reference(name: str, rule: str) -> None:
    case = CASES[name]
    check = fa.check_rule(case.wrapped(DIRECT[rule]), case.loss, case.x, case.y)
    assert check.worst < ROUNDING, check


@pytest.mark.parametrize("name", CASES)
def test_feedback_reaches_every_parameter(name: str) -> None:
    case = CASES[name]
    net = case.wrapped()
    case.loss(net(*case.inputs), case.y).backward()
    none = [key for key, p in net.model.named_parameters() if p.grad is None]
    assert none == (["aux.weight", "aux.bias"] if name in MAKERS else [])  # a head that the loss does not use
    report = fa.validate(case.model(), case.points, *case.inputs, **case.options)
    assert report.ok, report


@pytest.mark.parametrize("name", CASES)
def test_the_loss_falls(name: str) -> None:
    case = CASES[name]
    net = case.wrapped()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(100):  # after 30 steps a recurrent net is not there yet under every feedback
        optimizer.zero_grad()
        loss = case.loss(net(*case.inputs), case.y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_models_own(name: str) -> None:
    case = CASES[name]
    model = case.model()
    expected = copy.deepcopy(model)(*case.inputs)
    output = case.wrapped(model=model)(*case.inputs)
    assert type(output) is type(expected)
    for one, other in zip(flat(output), flat(expected), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", CASES)
def test_unwrapping_leaves_no_trace(name: str) -> None:
    case = CASES[name]
    model = case.model()
    keys = list(model.state_dict())
    net = case.wrapped(model=model)
    case.loss(net(*case.inputs), case.y).backward()
    assert net.unwrap() is model
    assert list(model.state_dict()) == keys
    assert {f"model.{key}" for key in keys} <= set(net.state_dict())
    assert hooks_on(model) == []
    model.zero_grad()
    case.loss(model(*case.inputs), case.y).backward()
    own = [p.grad for p in model.parameters()]
    plain = case.model()
    case.loss(plain(*case.inputs), case.y).backward()
    if name not in ("convnet", "residual"):  # whose running averages have moved; gradients do not use them
        assert list(model.state_dict()) == list(plain.state_dict())
    for one, other in zip(own, plain.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_alignment_can_be_measured(name: str) -> None:
    case = CASES[name]
    net = case.wrapped()
    cosines = fa.gradient_alignment(net, case.loss, case.x, case.y)
    assert cosines.layers.keys() == net.feedback_matrices.keys()
    assert -1 <= cosines.total <= 1
