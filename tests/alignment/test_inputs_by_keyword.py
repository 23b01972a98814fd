"""Every measure takes inputs by keyword, as a dict, and finds what it finds with the same inputs by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.models import TwoInputs, cross_entropy, floats, labels

import feedalign as fa
from feedalign.alignment import descent, output_errors

A, B, Y = floats(9, 4), floats(9, 3, seed=2), labels(9)
POSITIONS, KEYWORDS = (
    (
        A,
        B,
    ),
    {"b": B, "a": A},
)


def net(rule: Any = fa.DFA) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = TwoInputs()
    return rule(model, points=("gate",) if rule is not fa.FA else ("readout",), seed=1, example_input=POSITIONS)


MEASURES: dict[str, Callable[[Any], Any]] = {
    "gradient at preactivations": lambda x: fa.gradient_alignment(net(), cross_entropy, x, Y).per_sample["gate"],
    "gradient at parameters": lambda x: torch.tensor(
        [fa.gradient_alignment(net(), cross_entropy, x, Y, at="parameters").total]
    ),
    "conditioning": lambda x: torch.tensor([fa.conditioning(net(), cross_entropy, x, Y).error.condition_number]),
    "errors": lambda x: output_errors(net(), cross_entropy, x, Y),
    "silent errors": lambda x: output_errors(net(), cross_entropy, x, Y, silent=True),
    "descent": lambda x: torch.tensor([descent(net(), cross_entropy, x, Y, lr=0.1).rule]),
    "monitor": lambda x: torch.tensor(
        list(fa.AlignmentMonitor(net(), cross_entropy, x, Y, conditioning=True).measure(0).scalars.values())
    ),
    "check of a direct rule": lambda x: torch.tensor(list(fa.check_rule(net(), cross_entropy, x, Y).cosines.values())),
    "check of a sequential rule": lambda x: torch.tensor(
        list(fa.check_rule(net(fa.FA), cross_entropy, x, Y).cosines.values())
    ),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_inputs_by_keyword_are_the_inputs_by_position(measure: str) -> None:
    by_position, by_keyword = (MEASURES[measure](x) for x in (POSITIONS, KEYWORDS))
    assert torch.equal(by_keyword, by_position)
    other = MEASURES[measure]({"a": B @ floats(3, 4, seed=5), "b": B})
    silent = measure == "silent errors"  # those of an output of zero, whatever the inputs
    assert torch.equal(other, by_position) is silent
