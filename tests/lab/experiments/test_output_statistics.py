"""The experiment output-statistics: what it returns, and that each part of its check can fail."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import output_statistics

TINY = replace(
    output_statistics.CONFIGS["quick"],
    alphas=(1.0, 0.2),
    betas=(1.0, 0.2),
    inputs=8,
    samples=6,
    width=7,
    steps=5,
    draws=2,
)

RANKS, ALPHA, BETA = range(3)


def run(config: output_statistics.Config = TINY) -> xr.Dataset:
    return output_statistics.run(config, lambda done, total: None)


@pytest.fixture(scope="module")
def tiny() -> xr.Dataset:
    return run()


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"activation": 3, "target": 2, "draw": 2, "alpha": 2, "beta": 2}
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_the_same_config_gives_the_same_bits_and_more_draws_keep_the_first(tiny: xr.Dataset) -> None:
    xr.testing.assert_identical(run(), tiny)
    more = run(replace(TINY, draws=3)).isel(draw=slice(2))
    xr.testing.assert_allclose(more, tiny)
    assert not run(replace(TINY, first_seed=5)).equals(tiny)


def test_the_figure_can_be_saved_and_its_caption_counts(tiny: xr.Dataset) -> None:
    buffer = io.BytesIO()
    output_statistics.plot(tiny).savefig(buffer, format="svg")
    assert buffer.getvalue().startswith(b"<?xml")
    assert "2 draws at each of 4 pairs" in output_statistics.caption(tiny)


def ideal() -> xr.Dataset:
    """Alignment that falls with the logarithm of the condition number, and a little noise."""
    values = [1.0, 0.5, 0.2]
    conditions = np.array([[np.linalg.cond(output_statistics.covariance(a, b)) for b in values] for a in values])
    noise = 0.003 * np.random.default_rng(0).standard_normal((3, 2, 5, 3, 3))
    dims = ("activation", "target", "draw", "alpha", "beta")
    return xr.Dataset(
        {"gradient_alignment": (dims, 0.95 - 0.1 * np.log10(conditions) + noise)},
        coords={"activation": list(output_statistics.ACTIVATIONS), "target": ["random", "realisable"]}
        | {"alpha": values, "beta": values},
    )


def refused(dataset: xr.Dataset) -> set[int]:
    return {i for i, verdict in enumerate(output_statistics.check(dataset)) if not verdict.supported}


def test_what_the_claim_describes_is_supported() -> None:
    assert refused(ideal()) == set()


def flatten(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[2, 1] = 0.9 + 0.01 * np.random.default_rng(1).standard_normal((5, 3, 3))


def even_alpha(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[0, 0] += (
        dataset.gradient_alignment[0, 0].sel(alpha=1.0) - dataset.gradient_alignment[0, 0]
    )


def even_beta(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[1, 0, ..., 2] = dataset.gradient_alignment[1, 0, ..., 0].values


def lose_one(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[1, 1, 3, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (flatten, {RANKS, ALPHA, BETA}),
        (even_alpha, {RANKS, ALPHA}),
        (even_beta, {BETA}),
        (lose_one, {RANKS, ALPHA, BETA}),
    ],
)
def test_a_spoilt_result_is_not_supported(change: Callable[[xr.Dataset], None], expected: set[int]) -> None:
    dataset = ideal()
    change(dataset)
    assert refused(dataset) == expected


def test_the_weakest_combination_is_named() -> None:
    dataset = ideal()
    flatten(dataset)
    assert "ReLU, realisable targets" in output_statistics.check(dataset)[RANKS].sample


@pytest.mark.slow
def test_the_claim_is_supported_at_the_quick_preset() -> None:
    for verdict in output_statistics.check(run(output_statistics.CONFIGS["quick"])):
        assert verdict.supported, verdict
