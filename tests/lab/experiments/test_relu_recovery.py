"""What is special to the experiment relu-recovery, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, compute, relu_recovery
from feedalign.theory import shallow

Refused = Callable[[Experiment, xr.Dataset], set[int]]


CONDITION, FORMULA, GAP = range(3)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("relu-recovery")


def test_the_result_has_every_pair(tiny: xr.Dataset) -> None:
    assert list(zip(tiny.teachers.values, tiny.students.values, strict=True)) == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 2),
        (2, 3),
    ]
    assert dict(tiny.sizes) == {"case": 5, "run": 2}
    assert (tiny.positive_feedback <= tiny.students).all()


def test_a_run_that_diverges_counts_as_not_learned(tiny_config: Callable[[str], Any], refused: Refused) -> None:
    diverged = compute(relu_recovery, replace(tiny_config("relu-recovery"), lr=50.0))
    assert np.isinf(diverged.generalisation_error).all()
    assert refused(relu_recovery, diverged) >= {CONDITION, GAP}


def ideal(runs: int = 400) -> xr.Dataset:
    """As many positive entries as the law of signs asks for, and errors that follow the condition."""
    rng = np.random.default_rng(0)
    cases = [(M, K) for M in (1, 2) for K in range(M, 5)]
    positive = np.array([rng.binomial(K, 0.5, runs) for _, K in cases])
    teachers = np.array([M for M, _ in cases])
    error = np.where(positive >= teachers[:, None], 1e-5, 0.1) * np.exp(0.3 * rng.standard_normal(positive.shape))
    return xr.Dataset(
        {"positive_feedback": (("case", "run"), positive), "generalisation_error": (("case", "run"), error)},
        coords={"teachers": ("case", teachers), "students": ("case", [K for _, K in cases])},
    )


def test_the_formula_is_the_law_of_the_condition() -> None:
    dataset = ideal(20_000)
    share = (dataset.positive_feedback >= dataset.teachers).mean("run").values
    expected = [shallow.recovery_probability(int(case.students), int(case.teachers)) for case in dataset.students]
    np.testing.assert_allclose(share, expected, atol=0.015)


def learn_anyway(dataset: xr.Dataset) -> None:
    """Every second run that should not learn does."""
    doomed = dataset.positive_feedback < dataset.teachers
    dataset["generalisation_error"] = dataset.generalisation_error.where(~doomed | (np.arange(400) % 2 == 0), 1e-5)


def favour_positive(dataset: xr.Dataset) -> None:
    """Condition and outcome agree, but the signs were not drawn evenly."""
    dataset.positive_feedback[:, :200] = dataset.students
    dataset.generalisation_error[:, :200] = 1e-5


def lose_a_run(dataset: xr.Dataset) -> None:
    dataset.generalisation_error[2, 7] = np.nan


def learn_at_random(dataset: xr.Dataset) -> None:
    """As many runs learn as should, but not those whose feedback allows it."""
    dataset["generalisation_error"] = dataset.generalisation_error.roll(run=1)


def blur(dataset: xr.Dataset) -> None:
    dataset["generalisation_error"] = 0.8e-2 + 0.4e-2 * (dataset.generalisation_error > 1e-2)


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (learn_anyway, {CONDITION, FORMULA}),
    (favour_positive, {FORMULA}),
    (learn_at_random, {CONDITION}),
    (lose_a_run, {CONDITION, FORMULA, GAP}),
    (blur, {GAP}),
]
