"""What is special to the experiment alignment-matrices, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment

Refused = Callable[[Experiment, xr.Dataset], set[int]]


PREDICTED, RANKS = range(2)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("alignment-matrices")


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    sizes = {"outputs": 2, "draw": 2, "step": 4, "every_step": 31, "layer": 3, "matrix": 4}
    assert dict(tiny.sizes) == sizes
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


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
            "predicted_alignment": ((*dims, "layer"), gradient + 0.02 + 0.002 * rng.standard_normal(gradient.shape)),
            "condition_number": ((*dims, "matrix"), matrices),
            "loss": (("outputs", "draw", "every_step"), loss),
        },
        coords={"step": np.arange(1, 7), "layer": [1, 2], "matrix": [1, 2, 3]},
    )


def mispredict(dataset: xr.Dataset) -> None:
    dataset.predicted_alignment[:] = 0.2


def predict_another_draw(dataset: xr.Dataset) -> None:
    """The usual course of the alignment, which says nothing of this draw."""
    dataset["predicted_alignment"] = dataset.predicted_alignment.roll(draw=1)


def predict_the_mean_of_the_others(dataset: xr.Dataset) -> None:
    measured = dataset.gradient_alignment
    dataset["predicted_alignment"] = ((measured.sum("draw") - measured) / 4).transpose(*measured.dims)


def no_order(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[:, :, 3:, 0] = 0.9 + 0.01 * np.random.default_rng(1).standard_normal((4, 5, 3))


def lose_one(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[1, 1, 4, 0] = np.nan


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (mispredict, {PREDICTED}),
    (predict_another_draw, {PREDICTED}),
    (predict_the_mean_of_the_others, {PREDICTED}),
    (no_order, {RANKS}),
    (lose_one, {PREDICTED, RANKS}),
]
