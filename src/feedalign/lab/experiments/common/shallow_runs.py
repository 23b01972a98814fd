"""What experiments on shallow networks share: times, and the two phases of a run."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Array = NDArray[np.float64]

# What is computed both in theory and by simulation, and how the distance of the two is counted.
QUANTITIES = {"generalisation_error": "ε_g, in units of its start", "overlap": "cos(v, F)"}


def log_times(end_time: float, measurements: int, input_dim: int) -> Array:
    """Return 0 and times up to `end_time`, evenly spaced in log time and rounded to whole steps / input_dim."""
    times = np.rint(np.geomspace(0.1, end_time, measurements) * input_dim) / input_dim
    return np.unique(np.concatenate([[0.0], times]))


def phases(error: Array, overlap: Array) -> tuple[Array, Array]:
    """Return the largest overlap before the error has halved, and how far the overlap sinks from there to the end.

    Args:
        error: generalisation error [..., time].
        overlap: cos(v, F) [..., time].

    Returns:
        Both [...]. A run whose error never halves counts as "before" throughout; `learns` finds such runs. The second
        is negative where the overlap ends higher.
    """
    halved = np.logical_or.accumulate(error < error[..., :1] / 2, axis=-1)
    early: Array = np.where(halved, -1.0, overlap).max(-1)
    return early, early - overlap[..., -1]


def learns(error: Array) -> NDArray[np.bool_]:
    """Return whether the error [..., time] ever halves: without this, nothing comes before learning; [...]."""
    halved: NDArray[np.bool_] = np.any(error < error[..., :1] / 2, axis=-1)
    return halved


def distance(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return how far the mean simulated run is from the theory at each time, for one of `QUANTITIES`."""
    theory, simulated = dataset[f"{name}_theory"], dataset[f"{name}_simulation"].mean("seed", skipna=False)
    apart = abs(simulated - theory)
    return apart / theory.isel(time=0) if name == "generalisation_error" else apart


def early_overlap(error: xr.DataArray, overlap: xr.DataArray, *, learning: bool = False) -> xr.DataArray:
    """Return the largest overlap before the error has halved, without time.

    Time 0 is left out, because the cosine of zero weights is not a number. The error counts as halved when it is half
    of its value at the first time that is left.

    Args:
        error: generalisation error, with time.
        overlap: cos(v, F), with the dimensions of the error.
        learning: whether a run whose error never halves gets −1, since it has not aligned before it learns. Otherwise
            the whole run counts as "before".
    """
    error, overlap = (values.isel(time=slice(1, None)).transpose(..., "time") for values in (error, overlap))
    early = phases(error.values, overlap.values)[0]
    if learning:
        early = np.where(learns(error.values), early, -1.0)
    return overlap.isel(time=-1, drop=True).copy(data=early)
