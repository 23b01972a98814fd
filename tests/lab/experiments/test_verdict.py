"""A verdict: above, below, by a margin, and never supported by what is not a number."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import pytest

from feedalign.errors import ArgumentError
from feedalign.lab.experiments import Verdict, get


def verdict(effect: float, **changes: Any) -> Verdict:
    values: dict[str, Any] = {"spread": 0.1, "threshold": 1.0, "side": "above", "sample": "3 runs"}
    return Verdict(claim="it is so", effect=effect, **{**values, **changes})


@pytest.mark.parametrize("margin", [0.0, 1.0, 2.5])
def test_the_effect_has_to_pass_the_threshold_by_the_margin(margin: float) -> None:
    least = 1.0 + margin * 0.1
    assert verdict(least + 1e-9, margin=margin).supported
    assert not verdict(least - 1e-9, margin=margin).supported
    most = 1.0 - margin * 0.1
    assert verdict(most - 1e-9, margin=margin, side="below").supported
    assert not verdict(most + 1e-9, margin=margin, side="below").supported


def test_the_threshold_itself_does_not_pass() -> None:
    assert not verdict(1.0).supported
    assert not verdict(1.0, side="below").supported


@pytest.mark.parametrize("side", ["above", "below"])
@pytest.mark.parametrize("field", ["effect", "spread", "threshold", "margin"])
def test_what_is_not_a_number_supports_nothing(side: Literal["above", "below"], field: str) -> None:
    passing: dict[str, Any] = {"effect": 2.0 if side == "above" else 0.0, "side": side, "margin": 1.0}
    assert verdict(**passing).supported
    assert not verdict(**{**passing, field: math.nan}).supported


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_above_and_below_mirror_each_other(margin: float) -> None:
    for effect, threshold in itertools.product([-2.0, -0.5, 0.0, 0.5, 2.0], repeat=2):
        above = verdict(effect, threshold=threshold, margin=margin)
        below = verdict(-effect, threshold=-threshold, margin=margin, side="below")
        assert above.supported == below.supported


def test_the_words() -> None:
    assert verdict(2.0).word == "supported"
    assert verdict(0.0).word == "not supported"


def test_an_unknown_experiment_lists_the_known_ones() -> None:
    with pytest.raises(
        ArgumentError,
        match="no experiment is called 'layer_wise'; expected one of two-phases, degeneracy-breaking",
    ):
        get("layer_wise")
