"""The experiment alignment-matrices: what it returns, and that each part of its check can fail."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import alignment_matrices

TINY = replace(
    alignment_matrices.CONFIGS["quick"],
    outputs=((1.0, 1.0), (0.5, 0.2)),
    inputs=4,
    samples=12,
    width=10,
    steps=30,
    measurements=4,
    draws=2,
)

IDENTITY, FIRST, PREDICTED, RANKS = range(4)


def run(config: alignment_matrices.Config = TINY) -> xr.Dataset:
    return alignment_matrices.run(config, lambda done, total: None)


@pytest.fixture(scope="module")
def tiny() -> xr.Dataset:
    return run()


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    sizes = {"outputs": 2, "draw": 2, "step": 4, "every_step": 31, "layer": 3, "matrix": 4}
    assert dict(tiny.sizes) == sizes
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_the_same_config_gives_the_same_bits_and_more_draws_keep_the_first(tiny: xr.Dataset) -> None:
    xr.testing.assert_identical(run(replace(TINY, draws=3)).isel(draw=slice(2)), tiny)
    assert not run(replace(TINY, first_seed=5)).equals(tiny)


def test_the_figure_can_be_saved_and_its_caption_counts(tiny: xr.Dataset) -> None:
    buffer = io.BytesIO()
    alignment_matrices.plot(tiny).savefig(buffer, format="svg")
    assert buffer.getvalue().startswith(b"<?xml")
    assert "2 draws" in alignment_matrices.caption(tiny)


def ideal() -> xr.Dataset:
    """Ill-conditioned cells align worse once the loss has halved, and better before."""
    rng = np.random.default_rng(0)
    condition = np.array([1.0, 3.0, 10.0, 30.0])
    gradient = np.empty((4, 5, 6, 2))
    gradient[:, :, :3] = (0.5 + 0.1 * np.log(condition))[:, None, None, None]
    gradient[:, :, 3:] = (0.95 - 0.1 * np.log(condition))[:, None, None, None]
    gradient += 0.005 * rng.standard_normal(gradient.shape)
    dims = ("outputs", "draw", "step")
    matrices = np.broadcast_to(condition[:, None, None, None], (4, 5, 6, 3)).copy()
    loss = np.broadcast_to(np.where(np.arange(7) < 4, 1.0, 0.2), (4, 5, 7)).copy()
    return xr.Dataset(
        {
            "gradient_alignment": ((*dims, "layer"), gradient),
            "predicted_alignment": ((*dims, "layer"), gradient + 0.02),
            "condition_number": ((*dims, "matrix"), matrices),
            "loss": (("outputs", "draw", "every_step"), loss),
            "deviation": (dims[:2], np.full((4, 5), 1e-14)),
            "first_direction": (dims[:2], np.full((4, 5), 0.9999)),
        },
        coords={"step": np.arange(1, 7), "layer": [1, 2], "matrix": [1, 2, 3]},
    )


def refused(dataset: xr.Dataset) -> set[int]:
    return {i for i, verdict in enumerate(alignment_matrices.check(dataset)) if not verdict.supported}


def test_what_the_claim_describes_is_supported() -> None:
    assert refused(ideal()) == set()


def deviate(dataset: xr.Dataset) -> None:
    dataset.deviation[2, 3] = 1e-9


def turn(dataset: xr.Dataset) -> None:
    dataset.first_direction[0, 1] = 0.9


def mispredict(dataset: xr.Dataset) -> None:
    dataset.predicted_alignment[:] = 0.2


def no_order(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[:, :, 3:, 0] = 0.9 + 0.01 * np.random.default_rng(1).standard_normal((4, 5, 3))


def lose_one(dataset: xr.Dataset) -> None:
    dataset.deviation[1, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "expected"),
    [(deviate, {IDENTITY}), (turn, {FIRST}), (mispredict, {PREDICTED}), (no_order, {RANKS}), (lose_one, {IDENTITY})],
)
def test_a_spoilt_result_is_not_supported(change: Callable[[xr.Dataset], None], expected: set[int]) -> None:
    dataset = ideal()
    change(dataset)
    assert refused(dataset) == expected


@pytest.mark.slow
def test_the_claim_is_supported_at_the_quick_preset() -> None:
    for verdict in alignment_matrices.check(run(alignment_matrices.CONFIGS["quick"])):
        assert verdict.supported, verdict
