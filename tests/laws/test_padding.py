"""Entries without an error, such as padding under `ignore_index`, change nothing of what the others are sent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, network
from torch.nn import functional

import feedalign as fa

RULES: dict[str, Any] = {
    "DFA": fa.DFA,
    "sign": lambda model: fa.DFA(model, error="sign"),
    "DRTP": fa.DRTP,
    "ConditionedDFA": lambda model: fa.ConditionedDFA(model, every=1),
    "DirectKolenPollack": lambda model: fa.DirectKolenPollack(model, lr=1.0),
}


@pytest.mark.parametrize("name", RULES)
def test_padding_changes_no_hidden_gradient(name: str) -> None:
    """In two passes, so that what a rule has learned in the first one counts."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 15, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (4, 15), generator=generator)
    y[:, 5:] = -100
    found = []
    for length in (5, 15):
        net = RULES[name](network())
        for _ in range(2):
            net.zero_grad()
            output = net(x[:, :length]).flatten(0, 1)
            functional.cross_entropy(output, y[:, :length].flatten(), ignore_index=-100).backward()
        found.append(net.get_parameter("model.0.weight").grad)
    torch.testing.assert_close(*found, **EXACT)
