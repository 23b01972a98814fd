"""What is special to the experiment two-phases, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from feedalign.lab.experiments import Experiment, two_phases
from feedalign.lab.experiments.common.shallow_runs import phases

Refused = Callable[[Experiment, xr.Dataset], set[int]]


ALIGNS, SINKS, SINKS_RELU, AGREES, TURNS, AT_MINIMA, NEEDS_SIGNS = range(7)


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
NOISE, DRAWS, SEEDS = 2e-3, 8, 20


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
    return made(0.1 + 0.89 * sigmoid(5) - 0.06 * sigmoid(200), 0.5 - 0.4 * sigmoid(50))


def test_what_the_claim_describes_is_supported(refused: Refused) -> None:
    assert refused(two_phases, ideal()) == set()


def shift_theory(dataset: xr.Dataset, standard_errors: float = 20.0) -> None:
    dataset.overlap_theory[0, 3, 0, 25] += standard_errors * NOISE / np.sqrt(SEEDS)


def spoil(variable: str, time: int) -> Callable[[xr.Dataset], None]:
    """Put a NaN into one run, or the theory of one draw, at one time."""

    def change(dataset: xr.Dataset) -> None:
        at = {"activation": 0, "rule": 0, "draw": 2, "time": time}
        dataset[variable][at | ({"seed": 4} if "simulation" in variable else {})] = np.nan

    return change


def misalign_one_run(dataset: xr.Dataset) -> None:
    dataset.overlap_simulation[1, 5, 0, 7] = np.minimum(dataset.overlap_simulation[1, 5, 0, 7], 0.94)


def keep_the_alignment_of_relu(dataset: xr.Dataset) -> None:
    dataset.overlap_simulation[1, ..., -1] = dataset.overlap_simulation[1].max("time")


def turn_but_one_sign(dataset: xr.Dataset) -> None:
    dataset.late_readout[0, 3, 1, -1, 0] *= -1


def point_the_feedback_elsewhere(dataset: xr.Dataset) -> None:
    dataset.feedback[0, 5, 1] *= -1


def arrive_nowhere(dataset: xr.Dataset) -> None:
    dataset.late_error[0] = 0.1


def learn_with_turned_feedback(dataset: xr.Dataset) -> None:
    dataset.late_error[1, 6, 1, -1] = 1e-6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (shift_theory, {AGREES}),
        (lambda dataset: shift_theory(dataset, -20), {AGREES}),
        (lambda dataset: shift_theory(dataset, 1), set()),
        (spoil("overlap_theory", 25), {AGREES}),
        (spoil("generalisation_error_theory", 25), {AGREES}),
        (spoil("overlap_simulation", -1), {SINKS, AGREES}),
        (spoil("overlap_simulation", 10), {ALIGNS, SINKS, AGREES}),
        (spoil("generalisation_error_simulation", 10), {AGREES}),
        (misalign_one_run, {ALIGNS}),
        (keep_the_alignment_of_relu, {SINKS_RELU}),
        (turn_but_one_sign, {TURNS, AT_MINIMA}),
        (point_the_feedback_elsewhere, {AT_MINIMA}),
        (arrive_nowhere, {AT_MINIMA}),
        (learn_with_turned_feedback, {NEEDS_SIGNS}),
    ],
)
def test_a_spoilt_result_is_not_supported(
    change: Callable[[xr.Dataset], None], expected: set[int], refused: Refused
) -> None:
    dataset = ideal()
    change(dataset)
    assert expected <= refused(two_phases, dataset)
    assert ALIGNS in expected or ALIGNS not in refused(two_phases, dataset)
    assert bool(expected) == bool(refused(two_phases, dataset))


def test_no_alignment_is_not_supported(refused: Refused) -> None:
    flat = made(0.4 + 0 * TIMES, 0.5 - 0.4 * sigmoid(50))
    assert refused(two_phases, flat) >= {ALIGNS}


def test_learning_before_aligning_is_not_supported(refused: Refused) -> None:
    assert refused(two_phases, made(0.1 + 0.89 * sigmoid(50) - 0.06 * sigmoid(400), 0.5 - 0.4 * sigmoid(5))) == {ALIGNS}


def test_an_alignment_that_stays_is_not_supported(refused: Refused) -> None:
    """It goes on rising to the end, so nothing is given up; noise alone would look like a small sink."""
    rising = made(0.1 + 0.88 * sigmoid(5) + 0.1 * TIMES / 1000, 0.5 - 0.4 * sigmoid(50))
    assert refused(two_phases, rising) == {SINKS, SINKS_RELU}


def test_phases_on_curves_made_by_hand() -> None:
    error = np.array([[1.0, 0.8, 0.4, 0.1], [1.0, 0.8, 0.6, 0.55], [1.0, 0.4, 0.9, 0.9]])
    overlap = np.array([[0.1, 0.9, 0.99, 0.7], [0.2, 0.5, 0.6, 0.8], [0.3, 0.9, 0.95, 0.9]])
    early, sink = phases(error, overlap)
    # Row 1 never halves and counts whole; row 2 rises again after it halved, which does not make it early again.
    np.testing.assert_allclose(early, [0.9, 0.8, 0.3])
    np.testing.assert_allclose(sink, [0.29, 0.0, 0.05])
    np.testing.assert_allclose(phases(error[0], overlap[0]), (early[0], sink[0]))
