"""What is special to the experiment output-statistics, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, output_statistics
from feedalign.lab.experiments.common.output_pairs import covariance
from feedalign.lab.experiments.output_statistics_job import ACTIVATIONS, whitened

Refused = Callable[[Experiment, xr.Dataset], set[int]]


RANKS, ALPHA, BETA, RANDOM_RANKS, RANDOM_ALPHA, DECLINE = range(6)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("output-statistics")


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"activation": 3, "target": 2, "draw": 2, "alpha": 2, "beta": 2, "step": 3}
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_whitened_targets_have_the_covariance_one_and_are_as_well_learned_by_a_linear_network() -> None:
    drawn = np.random.default_rng(0).standard_normal((20, 2)) @ np.array([[3.0, 1.0], [0.5, 0.2]])
    white = whitened(drawn)
    np.testing.assert_allclose(white.T @ white, 20 * np.eye(2), atol=1e-12)
    combination = np.linalg.lstsq(drawn, white)[0]
    np.testing.assert_allclose(drawn @ combination, white, atol=1e-12)
    np.testing.assert_allclose(whitened(white), white, atol=1e-12)  # of all white targets the nearest


def ideal() -> xr.Dataset:
    """Alignment that falls with the logarithm of the condition number, and a little noise."""
    values = [1.0, 0.5, 0.2]
    conditions = np.array([[np.linalg.cond(covariance(a, b)) for b in values] for a in values])
    noise = 0.003 * np.random.default_rng(0).standard_normal((3, 2, 5, 3, 3))
    dims = ("activation", "target", "draw", "alpha", "beta")
    course = np.broadcast_to(np.array([0.5, 0.95, 0.9])[:, None, None], (3, 2, 5, 3, 3, 3)).copy()
    course[0, ..., -1, :, :] = 0.96  # linear networks
    course += noise[..., None, :, :]
    return xr.Dataset(
        {
            "gradient_alignment": (dims, 0.95 - 0.1 * np.log10(conditions) + noise),
            "weight_alignment_course": ((*dims[:3], "step", *dims[3:]), course),
        },
        coords={"activation": list(ACTIVATIONS), "target": ["random", "realisable"]}
        | {"alpha": values, "beta": values},
    )


def flatten(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[2, 1] = 0.9 + 0.01 * np.random.default_rng(1).standard_normal((5, 3, 3))


def flatten_random(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[0, 0] = 0.9 + 0.01 * np.random.default_rng(1).standard_normal((5, 3, 3))


def even_alpha(dataset: xr.Dataset) -> None:
    """What a fall of α takes is the same everywhere, in tanh networks."""
    dataset.gradient_alignment[1] = dataset.gradient_alignment[1].sel(alpha=1.0).values[:, :, None]


def even_beta(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[1, 1, ..., 2] = dataset.gradient_alignment[1, 1, ..., 0].values


def lose_one(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[1, 1, 3, 0, 0] = np.nan


def keep_all(dataset: xr.Dataset) -> None:
    """Tanh networks keep what they have at their peak."""
    dataset.weight_alignment_course[1, 1, ..., -1, :, :] = 0.96


def decline_in_linear_networks(dataset: xr.Dataset) -> None:
    dataset.weight_alignment_course[0] = dataset.weight_alignment_course[1].values


def lose_a_measurement(dataset: xr.Dataset) -> None:
    dataset.weight_alignment_course[1, 1, 3, 0, 0, 0] = np.nan


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (flatten, {RANKS, ALPHA, BETA}),
    (flatten_random, {RANDOM_RANKS, RANDOM_ALPHA}),
    (even_alpha, {ALPHA, RANDOM_ALPHA}),
    (even_beta, {BETA}),
    (lose_one, {RANKS, ALPHA, BETA}),
    (keep_all, {DECLINE}),
    (decline_in_linear_networks, {DECLINE}),
    (lose_a_measurement, {DECLINE}),
]


def test_the_weakest_combination_is_named() -> None:
    dataset = ideal()
    flatten(dataset)
    assert "ReLU" in output_statistics.check(dataset)[RANKS].sample
