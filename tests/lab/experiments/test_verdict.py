"""A verdict: one kind of spread, exact intervals, and never supported by what is not a number or a single run."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pytest
from scipy import stats

from feedalign.errors import ArgumentError
from feedalign.lab.experiments import LEVEL, Verdict, get, holm
from feedalign.lab.experiments.common.verdict import verdicts_on, weakest, weakest_of

SIDES = ("above", "below")


def verdict(effect: float, **changes: Any) -> Verdict:
    values: dict[str, Any] = {"standard_error": 0.1, "threshold": 1.0, "side": "above", "sample": "a seed", "runs": 5}
    return Verdict(claim="it is so", effect=effect, **{**values, **changes})


def of_p(p: float) -> Verdict:
    """A verdict with this p-value."""
    return verdict(1.0 + 0.1 * float(stats.t.isf(p, 4)))


@pytest.mark.parametrize("runs", [2, 3, 20])
def test_a_mean_has_to_pass_the_threshold_by_the_margin(runs: int) -> None:
    margin = float(stats.t.isf(LEVEL, runs - 1)) * 0.1
    assert verdict(2.0, runs=runs).margin == pytest.approx(margin)
    for side, sign in zip(SIDES, (1, -1), strict=True):
        assert verdict(1.0 + sign * (margin + 1e-6), side=side, runs=runs).supported
        assert not verdict(1.0 + sign * (margin - 1e-6), side=side, runs=runs).supported


def test_the_verdict_on_a_mean_is_that_of_the_t_test() -> None:
    values = np.random.default_rng(0).standard_normal(9) + 0.4
    for side, alternative in zip(SIDES, ("greater", "less"), strict=True):
        found = Verdict.of_mean("so", values, 0.1, side, sample="a seed")  # type: ignore[arg-type]
        expected = stats.ttest_1samp(values, 0.1, alternative=alternative)
        assert found.p_value == pytest.approx(expected.pvalue)
        np.testing.assert_allclose(found.interval, stats.ttest_1samp(values, 0.1).confidence_interval())
        assert found.runs == 9
        assert found.standard_error == pytest.approx(stats.sem(values))


def test_a_difference_is_taken_run_by_run() -> None:
    rng = np.random.default_rng(0)
    shared = 10 * rng.standard_normal(6)
    ours, theirs = shared + 1 + 0.1 * rng.standard_normal(6), shared
    assert Verdict.of_difference("so", ours, theirs, sample="a seed").supported
    assert not Verdict.of_difference("so", ours, theirs[::-1], sample="a seed").supported


def test_the_verdict_on_a_share_is_that_of_the_binomial_test() -> None:
    hits = np.arange(40) < 36
    for side, alternative in zip(SIDES, ("greater", "less"), strict=True):
        found = Verdict.of_share("so", hits, 0.8, side, sample="a run")  # type: ignore[arg-type]
        expected = stats.binomtest(36, 40, 0.8, alternative)
        assert found.p_value == pytest.approx(expected.pvalue)
        np.testing.assert_allclose(found.interval, expected.__class__.proportion_ci(stats.binomtest(36, 40)))
        assert found.effect == 0.9


def test_few_hits_in_a_row_prove_little() -> None:
    """With no miss in n runs a share above one half needs 0.5^n < 5 %."""
    for n in range(1, 9):
        found = Verdict.of_share("so", np.ones(n, bool), 0.5, sample="a run")
        assert found.supported == (n > 1 and 0.5**n < LEVEL)


@pytest.mark.parametrize("make", [Verdict.of_mean, Verdict.of_share])
def test_a_single_run_cannot_be_judged(make: Any) -> None:
    alone = make("so", [1.0], 0.5, sample="a seed")
    assert alone.word == "cannot be judged"
    assert not alone.supported
    assert "1 independent run: two are needed" in alone.numbers
    assert make("so", [], 0.5, sample="a seed").word == "cannot be judged"


def test_the_threshold_itself_does_not_pass() -> None:
    for side, error in itertools.product(SIDES, (0.1, 0.0)):
        assert not verdict(1.0, side=side, standard_error=error).supported
    assert verdict(1.1, standard_error=0.0).supported
    assert not verdict(1.1, standard_error=0.0, side="below").supported


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("field", ["effect", "standard_error", "threshold"])
def test_what_is_not_a_number_supports_nothing(side: Literal["above", "below"], field: str) -> None:
    passing: dict[str, Any] = {"effect": 2.0 if side == "above" else 0.0, "side": side}
    assert verdict(**passing).supported
    assert not verdict(**{**passing, field: math.nan}).supported
    assert not Verdict.of_mean("so", [2.0, 2.1, math.nan], 1.0, sample="a seed").supported


@pytest.mark.parametrize("side", SIDES)
def test_a_run_that_is_lost_is_no_hit_and_no_miss(side: Literal["above", "below"]) -> None:
    hits = np.full(40, float(side == "above"))
    assert Verdict.of_share("so", hits, 0.5, side, sample="a run").supported
    hits[3] = math.nan
    found = Verdict.of_share("so", hits, 0.5, side, sample="a run")
    assert found.word == "not supported"
    assert math.isnan(found.p_value)


def test_everything_in_a_verdict_goes_into_json() -> None:
    made = Verdict("so", np.float64(0.9), np.float32(0.1), 1 / np.sqrt(3), "above", "a seed", np.int64(4))  # type: ignore[arg-type]
    written = json.loads(json.dumps({**asdict(made), "supported": made.supported}))
    assert written["supported"] is True
    assert written["runs"] == 4


def test_above_and_below_mirror_each_other() -> None:
    for effect, threshold in itertools.product([-2.0, -0.5, 0.0, 0.5, 2.0], repeat=2):
        above = verdict(effect, threshold=threshold)
        below = verdict(-effect, threshold=-threshold, side="below")
        assert above.p_value == pytest.approx(below.p_value)


def test_the_words_and_numbers() -> None:
    assert verdict(2.0).word == "supported"
    assert verdict(0.0).word == "not supported"
    assert verdict(2.0).numbers == "2 [1.72, 2.28], expected above 1, 5 independent runs"


def test_the_weakest_verdict_decides() -> None:
    assert weakest([of_p(0.01), of_p(0.2), of_p(0.03)]).p_value == pytest.approx(0.2)
    assert math.isnan(weakest([of_p(0.9), verdict(math.nan)]).p_value)


def test_holm_corrects_for_the_number_of_verdicts() -> None:
    # 0.01 × 4, 0.02 × 3, 0.03 × 2 and 0.04 × 1, never falling.
    np.testing.assert_allclose(holm([of_p(p) for p in (0.03, 0.01, 0.04, 0.02)]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([of_p(0.02), verdict(math.nan)]), [0.04, 1.0])
    assert holm([]) == []


def test_holm_errs_in_five_per_cent_of_families() -> None:
    """Twenty verdicts, none of them true: how often is any of them supported after correction?"""
    rng = np.random.default_rng(0)
    families = 1000
    wrong = sum(
        min(holm([Verdict.of_mean("so", values, 0.0, sample="a seed") for values in family])) < LEVEL
        for family in rng.standard_normal((families, 20, 5))
    )
    assert abs(wrong / families - LEVEL) < 3 * math.sqrt(LEVEL * (1 - LEVEL) / families)


def test_an_unknown_experiment_lists_the_known_ones() -> None:
    with pytest.raises(
        ArgumentError,
        match="no experiment is called 'layer_wise'; expected one of two-phases, degeneracy-breaking",
    ):
        get("layer_wise")


def test_the_weakest_group_decides_and_its_sample_names_it() -> None:
    groups = {"strong": [2.0, 2.1, 2.2], "weak": [0.4, 0.6, 0.5], "middle": [0.9, 1.0, 1.1]}
    for threshold in (0.0, 0.45, 3.0):
        found = weakest_of("so", groups, threshold, sample="a seed")
        assert found == Verdict.of_mean("so", groups["weak"], threshold, sample="a seed; weak")
        assert found.supported == all(
            Verdict.of_mean("so", values, threshold, sample="a seed").supported for values in groups.values()
        )


def test_a_table_of_claims_gives_the_verdicts_one_by_one() -> None:
    numbers, groups = [0.4, 0.6, 0.5], {"strong": [2.0, 2.1, 2.2], "weak": [0.4, 0.6, 0.5]}
    found = verdicts_on(
        "a seed",
        {"low": (numbers, "below", 0.9), "high": (numbers, "above", 0.9), "each": (groups, "above", 0.3)},
    )
    assert found == [
        Verdict.of_mean("low", numbers, 0.9, "below", sample="a seed"),
        Verdict.of_mean("high", numbers, 0.9, "above", sample="a seed"),
        weakest_of("each", groups, 0.3, "above", sample="a seed"),
    ]
    assert [verdict.supported for verdict in found] == [True, False, True]
