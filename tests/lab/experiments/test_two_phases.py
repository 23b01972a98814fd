"""What is special to the experiment two-phases, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from feedalign.lab.experiments.common.shallow_runs import learns, phases

ALIGNS, BEYOND, SINKS, KEEPS, ERROR_AGREES, OVERLAP_AGREES, AT_MINIMA, NEEDS_SIGNS = range(8)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("two-phases")


def test_the_result_has_named_dimensions_and_units(tiny: xr.Dataset) -> None:
    assert set(tiny.data_vars) == {"feedback", "late_readout", "late_error"} | {
        f"{name}_{kind}" for name in ("generalisation_error", "overlap") for kind in ("theory", "simulation")
    }
    assert tiny.time.attrs["units"] == tiny.late_time.attrs["units"] == "steps / input dimension"
    sizes = {dim: n for dim, n in tiny.sizes.items() if "time" not in str(dim)}
    assert sizes == {"activation": 2, "draw": 2, "rule": 2, "seed": 3, "sign": 2, "unit": 2}
    assert tiny.time[0] == 0
    assert tiny.time[-1] == 20.0
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_theory_and_simulation_start_at_the_same_state(tiny: xr.Dataset) -> None:
    for name in ("generalisation_error", "overlap"):
        start = tiny.isel(time=0)
        expected = start[f"{name}_theory"].broadcast_like(start[f"{name}_simulation"])
        xr.testing.assert_allclose(start[f"{name}_simulation"], expected, rtol=0, atol=1e-12)


# What the check is to see, made by hand: cos(v, F) rises around t = 5 and sinks around 200, ε_g falls around 50.
TIMES = np.concatenate([[0.0], np.geomspace(0.1, 1000, 40)])
NOISE, DRAWS, SEEDS = 2e-3, 12, 6


def sigmoid(centre: float) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return 1 / (1 + (centre / TIMES) ** 4)


def made(overlap: NDArray[np.float64], error: NDArray[np.float64]) -> xr.Dataset:
    rng = np.random.default_rng(0)
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.float64]]] = {}
    for name, curve in (("overlap", overlap), ("generalisation_error", error)):
        theory = np.broadcast_to(curve, (2, DRAWS, 2, len(TIMES)))
        noise = NOISE * rng.standard_normal((2, DRAWS, 2, SEEDS, len(TIMES)))
        variables[f"{name}_theory"] = (("activation", "draw", "rule", "time"), theory.copy())
        variables[f"{name}_simulation"] = (("activation", "draw", "rule", "seed", "time"), theory[..., None, :] + noise)
    # Erf goes from 0 to (1, 1) and, turned, to (−1, −1); ReLU learns with F only.
    readout, late_error = np.zeros((2, DRAWS, 2, 2, 2)), np.full((2, DRAWS, 2, 2), 0.5)
    readout[..., 1, :] = np.array([1.0, -1.0])[:, None]
    late_error[..., 1] = np.array([[1e-6, 1e-6], [1e-6, 0.5]])[:, None]
    variables["late_readout"] = (("activation", "draw", "sign", "late_time", "unit"), readout)
    variables["feedback"] = (("activation", "draw", "unit"), np.broadcast_to([0.9, 0.3], (2, DRAWS, 2)).copy())
    variables["late_error"] = (("activation", "draw", "sign", "late_time"), late_error)
    coordinates = {"activation": ["erf", "relu"], "rule": ["dfa", "backprop"], "sign": [1, -1], "time": TIMES}
    return xr.Dataset(variables, coords=coordinates)


def ideal() -> xr.Dataset:
    """DFA rises to 0.99 and sinks to 0.93; backprop stays near 0.3."""
    dataset = made(0.1 + 0.89 * sigmoid(5) - 0.06 * sigmoid(200), 0.5 - 0.4 * sigmoid(50))
    for name in ("overlap_theory", "overlap_simulation"):
        dataset[name].loc[{"rule": "backprop"}] *= 0.3
    return dataset


def simulated(dataset: xr.Dataset) -> xr.DataArray:
    return dataset["overlap_simulation"]


def misalign(dataset: xr.Dataset) -> None:
    """ReLU students, in theory and simulation, reach no more than 0.9."""
    simulated(dataset).loc[{"activation": "relu"}] *= 0.9


def align_under_backprop(dataset: xr.Dataset) -> None:
    simulated(dataset).loc[{"rule": "backprop"}] = simulated(dataset).sel(rule="dfa")
    dataset.overlap_theory.loc[{"rule": "backprop"}] = dataset.overlap_theory.sel(rule="dfa")


def keep_all(dataset: xr.Dataset) -> None:
    """The cosine stays at its peak."""
    peak = simulated(dataset).sel(activation="erf", rule="dfa").argmax("time").max()
    for values in (simulated(dataset), dataset.overlap_theory):
        values.loc[{"activation": "erf", "rule": "dfa"}] = values.sel(activation="erf", rule="dfa").where(
            np.arange(len(TIMES)) <= int(peak), 0.99
        )


def learn_before_aligning(dataset: xr.Dataset) -> None:
    late = made(0.1 + 0.89 * sigmoid(50) - 0.06 * sigmoid(400), 0.5 - 0.4 * sigmoid(5))
    for name in late.data_vars:
        dataset[name].loc[{}] = late[name]


def learn_nothing(dataset: xr.Dataset) -> None:
    """The cosine goes its way, and the error stays: then nothing came before learning."""
    for name in ("generalisation_error_theory", "generalisation_error_simulation"):
        dataset[name][:] = 0.5


def lose_all_at_the_end(dataset: xr.Dataset) -> None:
    for values in (simulated(dataset), dataset.overlap_theory):
        values[{"activation": 0, "rule": 0, "time": -1}] = 0.3


def shift_error(dataset: xr.Dataset) -> None:
    dataset.generalisation_error_theory[0, :, 0, 5:] += 0.1


def shift_overlap(dataset: xr.Dataset) -> None:
    dataset.overlap_theory[0, :, 0, 5:] -= 0.2


def spoil(dataset: xr.Dataset) -> None:
    """A run of one draw has no number at one time."""
    simulated(dataset)[{"activation": 0, "rule": 0, "draw": 2, "time": -1, "seed": 4}] = np.nan


def take_other_minima(dataset: xr.Dataset) -> None:
    dataset.feedback[0, :4, 1] *= -1


def arrive_nowhere(dataset: xr.Dataset) -> None:
    dataset.late_error[0] = 0.1


def learn_with_turned_feedback(dataset: xr.Dataset) -> None:
    dataset.late_error[1, ::2, 1, -1] = 1e-6


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (misalign, {ALIGNS}),
    (align_under_backprop, {BEYOND, KEEPS}),
    (keep_all, {SINKS}),
    (learn_before_aligning, {ALIGNS, BEYOND, SINKS, KEEPS}),
    (learn_nothing, {ALIGNS, BEYOND, SINKS}),
    (lose_all_at_the_end, {KEEPS}),
    (shift_error, {ERROR_AGREES}),
    (shift_overlap, {OVERLAP_AGREES}),
    (spoil, {KEEPS, OVERLAP_AGREES}),
    (take_other_minima, {AT_MINIMA}),
    (arrive_nowhere, {AT_MINIMA}),
    (learn_with_turned_feedback, {NEEDS_SIGNS}),
]


def test_phases_on_curves_made_by_hand() -> None:
    error = np.array([[1.0, 0.8, 0.4, 0.1], [1.0, 0.8, 0.6, 0.55], [1.0, 0.4, 0.9, 0.9]])
    overlap = np.array([[0.1, 0.9, 0.99, 0.7], [0.2, 0.5, 0.6, 0.8], [0.3, 0.9, 0.95, 0.9]])
    early, sink = phases(error, overlap)
    # Row 1 never halves and counts whole; row 2 rises again after it halved, which does not make it early again.
    np.testing.assert_allclose(early, [0.9, 0.8, 0.3])
    np.testing.assert_allclose(sink, [0.2, 0.0, -0.6])
    np.testing.assert_allclose(phases(error[0], overlap[0]), (early[0], sink[0]))
    np.testing.assert_array_equal(learns(error), [True, False, True])
