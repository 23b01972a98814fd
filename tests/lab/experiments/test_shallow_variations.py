"""What is special to the experiment shallow-variations, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments.common.shallow_runs import early_overlap
from feedalign.lab.experiments.shallow_variations_job import VARIATIONS

ALIGNS, BEYOND, HINDERED, OWN, ERROR_AGREES, OVERLAP_AGREES, SIGNS, SAME, INFORMED, NOISE, LENGTHENS, RECOVERY = range(
    12
)
DRAWS, SEEDS = 20, 2


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("shallow-variations")


def test_the_result_has_named_dimensions_and_finite_numbers(tiny: xr.Dataset) -> None:
    sizes = {dim: n for dim, n in tiny.sizes.items() if dim != "time"}
    assert sizes == {"variation": 12, "draw": 2, "rule": 2, "seed": 2, "unit": 4}
    assert tiny.variation.values.tolist() == list(VARIATIONS)
    later = tiny.isel(time=slice(1, None))  # the cosine of zero weights is no number
    assert np.isfinite(later.overlap_simulation).all()
    assert np.isfinite(later.overlap_theory.sel(rule="dfa")).all()
    for name, variation in VARIATIONS.items():
        for of_units in (tiny.feedback, tiny.late_readout, tiny.late_length, tiny.taken):
            assert (of_units.sel(variation=name).notnull().sum("unit") == variation.units).all()


def test_backprop_does_not_move_from_zero_weights(tiny: xr.Dataset) -> None:
    error = tiny.generalisation_error_theory.sel(variation="zero", rule="backprop")
    xr.testing.assert_allclose(error, error.isel(time=0, drop=True).broadcast_like(error), rtol=1e-12)


def test_feedback_is_what_each_variation_says(tiny: xr.Dataset) -> None:
    feedback = {name: tiny.feedback.sel(variation=name).transpose("draw", "unit").values for name in VARIATIONS}
    for name in ("noise", "alternating", "relu", "zero", "large readout"):
        np.testing.assert_array_equal(feedback[name], feedback["plain"])
    for name in ("positive", "informed"):
        np.testing.assert_array_equal(feedback[name], np.abs(feedback["plain"]))
    np.testing.assert_array_equal(feedback["informed, turned"], np.abs(feedback["plain"]) * [-1, 1, 1, 1])
    np.testing.assert_allclose(feedback["orthogonal"].sum(axis=1), 0, atol=1e-12)  # A is one everywhere
    start = tiny.overlap_theory.sel(variation="own readout", rule="dfa").isel(time=0)
    np.testing.assert_allclose(start, 1)


def test_theory_and_simulation_start_at_the_same_state(tiny: xr.Dataset) -> None:
    start = tiny.isel(time=0).sel(rule="dfa")
    for name in ("generalisation_error", "overlap"):
        expected = start[f"{name}_theory"].broadcast_like(start[f"{name}_simulation"])
        xr.testing.assert_allclose(start[f"{name}_simulation"], expected, rtol=0, atol=1e-12)


def test_early_overlap_leaves_out_time_0_and_what_comes_after_the_error_has_halved() -> None:
    error = xr.DataArray([[1.0, 1.0, 0.4, 0.1], [1.0, 1.0, 0.9, 0.8]], dims=("draw", "time"))
    overlap = xr.DataArray([[np.nan, 0.2, 0.9, 1.0], [0.99, 0.1, 0.3, 0.2]], dims=("draw", "time"))
    for order in (("draw", "time"), ("time", "draw")):
        np.testing.assert_allclose(early_overlap(error.transpose(*order), overlap.transpose(*order)), [0.2, 0.3])


def ideal() -> xr.Dataset:
    """Every student aligns and ends where it should; noise takes most where F is largest."""
    rng = np.random.default_rng(0)
    names, times = list(VARIATIONS), np.array([0.0, 1.0, 10.0, 100.0])
    overlap = np.broadcast_to([0.1, 0.99, 0.99, 0.9], (len(names), DRAWS, 2, 4)).copy()
    overlap[:, :, 1] *= 0.3
    overlap[names.index("large readout"), :, :, :3] = 0.5
    overlap[names.index("own readout"), :, :, 0] = 1.0
    error = np.broadcast_to([0.4, 0.4, 0.1, 1e-6], overlap.shape).copy()
    curves: dict[str, Any] = {}
    for name, theory in (("overlap", overlap), ("generalisation_error", error)):
        noise = 0.003 * rng.standard_normal((len(names), DRAWS, SEEDS, 4))
        curves[f"{name}_theory"] = (("variation", "draw", "rule", "time"), theory)
        curves[f"{name}_simulation"] = (("variation", "draw", "seed", "time"), theory[:, :, 0, None] + noise)
    feedback, readout, taken, length = np.full((4, len(names), DRAWS, 4), np.nan)
    late = np.full((len(names), DRAWS), 1e-6)
    for i, (name, variation) in enumerate(VARIATIONS.items()):
        K = variation.units
        F = np.random.default_rng(K).standard_normal((DRAWS, K))
        F = {"random": F, "turned": np.abs(F) * [-1] + 2 * np.abs(F) * (np.arange(K) > 0)}.get(
            variation.feedback, np.abs(F)
        )
        feedback[i, :, :K], readout[i, :, :K] = F, np.sign(F)
        taken[i, :, :K], length[i, :, :K] = np.sign(F) * np.arange(1, K + 1), 1.0
        if name == "noise":
            length[i, :, :K] += 0.5 * np.square(F)
            readout[i, :, :K] /= np.sqrt(length[i, :, :K])
        if name == "relu":
            late[i, F[:, 0] * F[:, 1] > 0] = 0.3
    by_unit = ("variation", "draw", "unit")
    lengths = np.sqrt(np.nansum(feedback**2, axis=-1) * np.nansum(readout**2, axis=-1))
    return xr.Dataset(
        curves
        | {
            "feedback": (by_unit, feedback),
            "late_readout": (by_unit, readout),
            "late_length": (by_unit, length),
            "taken": (by_unit, taken),
            "late_error": (("variation", "draw"), late),
            "late_overlap": (("variation", "draw"), np.nansum(feedback * readout, axis=-1) / lengths),
        },
        coords={"variation": names, "rule": ["dfa", "backprop"], "time": times},
    )


def at(variation: str, **others: Any) -> dict[str, Any]:
    """The index of a variation, and further indices."""
    return {"variation": list(VARIATIONS).index(variation), **others}


def align_less_with_orthogonal_feedback(dataset: xr.Dataset) -> None:
    for name in ("overlap_theory", "overlap_simulation"):
        dataset[name][at("orthogonal")] *= 0.9


def align_under_backprop(dataset: xr.Dataset) -> None:
    dataset.overlap_theory[at("noise", rule=1)] = dataset.overlap_theory[at("noise", rule=0)].values


def align_from_a_large_readout(dataset: xr.Dataset) -> None:
    for name in ("overlap_theory", "overlap_simulation"):
        dataset[name][at("large readout")] = dataset[name][at("plain")].values


def learn_nothing(dataset: xr.Dataset) -> None:
    """The cosines go their way, and the errors stay: then nothing came before learning."""
    for name in ("generalisation_error_theory", "generalisation_error_simulation"):
        dataset[name][:] = 0.4


def lose_a_late_state(dataset: xr.Dataset) -> None:
    for name in ("taken", "late_readout", "late_error"):
        dataset[name][{"draw": 2}] = np.nan


def lose_the_own_readout_for_a_while(dataset: xr.Dataset) -> None:
    for name in ("overlap_theory", "overlap_simulation"):
        dataset[name][at("own readout", time=1)] = 0.8


def learn_slowly(dataset: xr.Dataset) -> None:
    dataset.generalisation_error_theory[at("informed", rule=0, time=2)] = 0.4


def turn_late(dataset: xr.Dataset) -> None:
    dataset.overlap_theory[at("informed", rule=0, time=2)] = 0.3


def keep_a_sign(dataset: xr.Dataset) -> None:
    """Three of twenty students with orthogonal feedback end with another sign."""
    dataset.late_readout[at("orthogonal", draw=slice(3), unit=0)] *= -1


def take_other_solutions_from_zero(dataset: xr.Dataset) -> None:
    taken = dataset.taken[at("zero", draw=slice(5))].values
    dataset.taken[at("zero", draw=slice(5))] = taken[:, [1, 0, 2, 3]]


def stay_informed(dataset: xr.Dataset) -> None:
    dataset.taken[at("informed, turned", draw=slice(5), unit=0)] = 1


def leave_with_agreeing_signs(dataset: xr.Dataset) -> None:
    dataset.taken[at("informed", draw=slice(5), unit=0)] = -1


def arrive_nowhere(dataset: xr.Dataset) -> None:
    dataset.late_error[at("informed, turned")] = 0.1


def take_nothing(dataset: xr.Dataset) -> None:
    dataset.late_overlap[at("noise")] = dataset.late_overlap[at("plain")].values


def lengthen_evenly(dataset: xr.Dataset) -> None:
    dataset.late_length[at("noise")] = dataset.late_length[at("plain")].values + 0.5


def never_arrive_without_noise(dataset: xr.Dataset) -> None:
    dataset.late_error[at("plain")] = 0.1


def learn_anyway(dataset: xr.Dataset) -> None:
    dataset.late_error[at("relu")] = 1e-6


def lose_a_run(dataset: xr.Dataset) -> None:
    dataset.overlap_simulation[at("plain", draw=2, seed=0, time=1)] = np.nan


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (align_less_with_orthogonal_feedback, {ALIGNS}),
    (align_under_backprop, {BEYOND}),
    (align_from_a_large_readout, {HINDERED}),
    (learn_nothing, {ALIGNS, BEYOND, HINDERED, OWN}),
    (lose_a_late_state, {RECOVERY}),  # of the shares, the others count the draw as one that misses
    (lose_the_own_readout_for_a_while, {OWN}),
    (learn_slowly, {ERROR_AGREES}),
    (turn_late, {OVERLAP_AGREES}),
    (keep_a_sign, {SIGNS}),
    (take_other_solutions_from_zero, {SAME}),
    (stay_informed, {INFORMED}),
    (leave_with_agreeing_signs, {INFORMED}),
    (arrive_nowhere, {INFORMED}),
    (take_nothing, {NOISE}),
    (lengthen_evenly, {LENGTHENS}),
    (never_arrive_without_noise, {NOISE, LENGTHENS}),
    (learn_anyway, {RECOVERY}),
    (lose_a_run, {ALIGNS, HINDERED, OVERLAP_AGREES}),
]
