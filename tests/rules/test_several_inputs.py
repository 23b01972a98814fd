"""Models of several inputs, given by position or by keyword."""

from __future__ import annotations

import torch
from tests.cases.models import (
    TwoInputs,
    floats,
)

import feedalign as fa


def test_inputs_by_keyword() -> None:
    model = TwoInputs()
    net = fa.DFA(model, points=("gate",))
    a, b = floats(5, 4), floats(5, 3)
    expected = model(a, b, scale=3.0)
    assert torch.equal(net(b=b, a=a, scale=3.0), expected)
    assert fa.validate(model, ("gate",), a, b=b, scale=3.0).ok
    net(a, b=b).sum().backward()
    assert model.left.weight.grad is not None
