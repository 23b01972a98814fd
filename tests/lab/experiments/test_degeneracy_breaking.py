"""What is special to the experiment degeneracy-breaking, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, degeneracy_breaking
from feedalign.theory import shallow

Refused = Callable[[Experiment, xr.Dataset], set[int]]


TEACHERS = degeneracy_breaking.CONFIGS["quick"].teachers[:2]
PREDICTED, SIGNS, DIFFERENT = range(3)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("degeneracy-breaking")


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"rule": 2, "teacher": 2, "draw": 2, "unit": 3}
    assert tiny.hidden.values.tolist() == [2, 3]
    for values in tiny.data_vars.values():  # a teacher of two units has no third
        assert np.isfinite(values.isel(teacher=1)).all()
        assert "unit" not in values.dims or np.isnan(values.isel(teacher=0, unit=2)).all()


def test_both_predictions_are_stored(tiny: xr.Dataset) -> None:
    for draw in range(2):
        F = tiny.feedback[1, draw].values
        minima = shallow.global_minima(TEACHERS[1]).v
        np.testing.assert_allclose(tiny.largest_overlap_readout[1, draw], minima[(minima @ F).argmax()])
        np.testing.assert_array_equal(np.sign(tiny.predicted_readout[1, draw]), np.sign(F))
        np.testing.assert_allclose(np.sort(np.abs(tiny.predicted_readout[1, draw])), np.sort(TEACHERS[1]))


def ideal(draws: int = 48) -> xr.Dataset:
    """DFA at the prediction in every run, which is not the largest v·F in a third of K = 3; backprop everywhere."""
    rng = np.random.default_rng(0)
    hidden, shape = [2, 3], (2, draws, 3)
    feedback, predicted, largest = (np.full(shape, np.nan) for _ in range(3))
    nearest = np.full((2, *shape), np.nan)
    for i, A in enumerate(TEACHERS):
        minima = shallow.global_minima(A).v
        for draw in range(draws):
            F = rng.standard_normal(len(A))
            feedback[i, draw, : len(A)], largest[i, draw, : len(A)] = F, shallow.selected_solution(A, F)
            predicted[i, draw] = largest[i, draw]
            if len(A) == 3 and draw % 3 == 0:  # the two units with the smaller |F_k| exchange places
                small = np.argsort(np.abs(F))[:2]
                predicted[i, draw, small] = np.abs(largest[i, draw, small[::-1]]) * np.sign(F[small])
            nearest[1, i, draw, : len(A)] = minima[draw % len(minima)]
    nearest[0] = predicted
    by_unit = ("teacher", "draw", "unit")
    return xr.Dataset(
        {
            "feedback": (by_unit, feedback),
            "predicted_readout": (by_unit, predicted),
            "largest_overlap_readout": (by_unit, largest),
            "final_readout": (("rule", *by_unit), nearest.copy()),
            "nearest_readout": (("rule", *by_unit), nearest),
            "distance_to_nearest": (("rule", "teacher", "draw"), np.zeros((2, 2, draws))),
            "generalisation_error": (("rule", "teacher", "draw"), np.full((2, 2, draws), 1e-5)),
        },
        coords={"rule": ["dfa", "backprop"], "hidden": ("teacher", hidden)},
        attrs={"solved": 1e-5},
    )


def test_the_score_is_one_at_the_best_and_zero_on_average_over_permutations() -> None:
    dataset = ideal()
    dataset.nearest_readout[0] = dataset.largest_overlap_readout
    np.testing.assert_allclose(degeneracy_breaking.score(dataset).sel(rule="dfa"), 1)
    F, A = dataset.feedback.isel(teacher=1).values, np.array(TEACHERS[1])
    orders = shallow.global_minima(A, "relu").permutation  # every order, without signs
    scores = []
    for order in orders:
        dataset.nearest_readout[0, 1] = A[order] * np.sign(F)
        scores.append(degeneracy_breaking.score(dataset)[0, 1].values)
    np.testing.assert_allclose(np.mean(scores, axis=0), 0, atol=1e-12)


def exchange_units(dataset: xr.Dataset) -> None:
    """The worst order instead of the best, in 30 of 48 runs of K = 3, with the signs of F kept."""
    for draw in range(30):
        F = dataset.feedback[1, draw].values
        v = np.empty(3)
        v[np.argsort(np.abs(F))] = np.sort(TEACHERS[1])[::-1]
        dataset.nearest_readout[0, 1, draw] = v * np.sign(F)


def take_the_largest_overlap(dataset: xr.Dataset) -> None:
    """What the claim said before: the largest v·F in every run. It misses the prediction in a third of K = 3."""
    dataset.nearest_readout[0] = dataset.largest_overlap_readout


def miss_half_of_the_exchanged(dataset: xr.Dataset) -> None:
    """The largest v·F in 7 of the 16 runs in which the predictions differ: 9 of 16 do not show more than one half."""
    dataset.nearest_readout[0, 1, :21:3] = dataset.largest_overlap_readout[1, :21:3]


def predict_nothing(dataset: xr.Dataset) -> None:
    dataset.predicted_readout[1] = np.nan


def turn_a_sign(dataset: xr.Dataset) -> None:
    dataset.final_readout[0, 0, :8, 0] *= -1


def never_arrive(dataset: xr.Dataset) -> None:
    dataset.generalisation_error[0, 1] = 0.1


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (exchange_units, {PREDICTED, DIFFERENT}),
    (take_the_largest_overlap, {PREDICTED, DIFFERENT}),
    (predict_nothing, {PREDICTED, DIFFERENT}),
    (miss_half_of_the_exchanged, {PREDICTED, DIFFERENT}),
    (turn_a_sign, {SIGNS}),
    (never_arrive, {PREDICTED, SIGNS, DIFFERENT}),
]


def test_runs_that_did_not_arrive_are_left_out(refused: Refused) -> None:
    dataset = ideal()
    exchange_units(dataset)
    dataset.generalisation_error[0, 1, :30] = 0.1
    assert refused(degeneracy_breaking, dataset) & {DIFFERENT} == set()
    assert "K = 3: 18 of 18" in degeneracy_breaking.check(dataset)[PREDICTED].sample
