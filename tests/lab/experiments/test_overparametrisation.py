"""What is special to the experiment overparametrisation, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, compute, overparametrisation

Refused = Callable[[Experiment, xr.Dataset], set[int]]


ALIGNS, BEYOND, SMALL, SPARE, BETWEEN = range(5)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("overparametrisation")


def test_the_result_has_named_dimensions_and_units(tiny: xr.Dataset) -> None:
    sizes = {dim: n for dim, n in tiny.sizes.items() if dim != "time"}
    assert sizes == {"activation": 2, "rule": 2, "students": 3, "run": 2}
    assert tiny.time.attrs["units"] == "steps / input dimension"
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_both_rules_start_at_the_same_state(tiny: xr.Dataset) -> None:
    start = tiny.isel(time=0)
    xr.testing.assert_equal(start.sel(rule="dfa", drop=True), start.sel(rule="backprop", drop=True))


def test_unit_overlap_is_a_cosine_that_a_single_teacher_gives_in_full(
    tiny: xr.Dataset, tiny_config: Callable[[str], Any]
) -> None:
    assert (tiny.unit_overlap > 0).all()
    assert (tiny.unit_overlap <= 1 + 1e-12).all()
    config = replace(tiny_config("overparametrisation"), teachers=1, students=(1,), end_time=1000.0, lr=0.3)
    alone = compute(overparametrisation, config)
    assert (alone.unit_overlap.sel(activation="erf").isel(time=-1) > 0.99).all()


def test_a_run_that_diverges_is_never_supported(tiny_config: Callable[[str], Any]) -> None:
    config = replace(tiny_config("overparametrisation"), lr=200.0)
    diverged = compute(overparametrisation, config)
    assert np.isnan(diverged.overlap).any()
    assert not any(verdict.supported for verdict in overparametrisation.check(diverged))


def ideal(runs: int = 20) -> xr.Dataset:
    """Aligned to 0.99 before the error falls; 0.9 is left where K ≤ M, 0.95 where K ≥ 2M."""
    rng = np.random.default_rng(0)
    dims = ("activation", "rule", "students", "run", "time")
    overlap = np.empty((2, 2, 3, runs, 3))
    overlap[:] = np.array([[0.0, 0.99, 0.9], [0.0, 0.99, 0.9], [0.0, 0.99, 0.95]])[:, None]
    overlap[:, 1, :, :, 1] = 0.3  # backprop turns to no feedback
    overlap[:, :, :, :, 1] += 0.003 * rng.standard_normal(overlap.shape[:-1])
    overlap[..., 2] += 0.02 * rng.standard_normal(overlap.shape[:-1])
    second = np.broadcast_to([0.1, 0.3, 0.4], overlap.shape).copy()
    second[:, :, 0, :, 2] = 0.7 + 0.1 * rng.standard_normal((2, 2, runs))  # K < M
    error = np.empty_like(overlap)
    error[:] = np.array([[0.5, 0.45, 0.05], [0.5, 0.45, 1e-6], [0.5, 0.45, 1e-6]])[:, None]
    return xr.Dataset(
        {
            "overlap": (dims, overlap),
            "second_overlap": (dims, second),
            "generalisation_error": (dims, error),
        },
        coords={
            "activation": ["erf", "relu"],
            "rule": ["dfa", "backprop"],
            "students": [1, 2, 4],
            "time": [0.0, 1.0, 2.0],
        },
        attrs={"teachers": 2},
    )


def align_less(dataset: xr.Dataset) -> None:
    dataset.overlap[1, 0, 2, :, 1] = 0.9


def align_under_backprop(dataset: xr.Dataset) -> None:
    dataset.overlap[0, 1, :, :, 1] = 0.9


def forget_if_small(dataset: xr.Dataset) -> None:
    dataset.overlap[0, 0, 0, :, -1] -= 0.12


def forget_if_large(dataset: xr.Dataset) -> None:
    dataset.overlap[1, 0, 2, :, -1] -= 0.05


def learn_nothing(dataset: xr.Dataset) -> None:
    dataset.generalisation_error[:] = 0.5


def turn_to_single_units(dataset: xr.Dataset) -> None:
    dataset.second_overlap[0, 0, 0, :, -1] = 0.4 + 0.1 * np.random.default_rng(1).standard_normal(20)


def lie_anywhere_between_teacher_units(dataset: xr.Dataset) -> None:
    """Units in random directions: of more units, one is more likely to lie right between two teacher units."""
    directions = np.random.default_rng(1).standard_normal((20, 2, 2))
    cosines = np.sort(np.abs(directions) / np.linalg.norm(directions, axis=-1, keepdims=True), axis=-1)[..., 0]
    dataset.second_overlap[0, 0, 0, :, -1], dataset.second_overlap[0, 0, 1, :, -1] = cosines[:, 0], cosines.max(1)


def lose_a_run(dataset: xr.Dataset) -> None:
    dataset.overlap[0, 0, 1, 0] = np.nan


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (align_less, {ALIGNS}),
    (align_under_backprop, {BEYOND}),
    (forget_if_small, {SMALL}),
    (forget_if_large, {SPARE}),
    (learn_nothing, {ALIGNS, BEYOND}),
    (turn_to_single_units, {BETWEEN}),
    (lie_anywhere_between_teacher_units, {BETWEEN}),
    (lose_a_run, {ALIGNS, BEYOND, SMALL, SPARE}),
]
