"""Curves over epochs: when they reach a level, where they are highest, and how far below that they end."""

from __future__ import annotations

import numpy as np
import xarray as xr

from feedalign.alignment import onset


def log_onset(curves: xr.DataArray, level: xr.DataArray | float) -> xr.DataArray:
    """Return the logarithm of the epoch at which curves first reach a level; not a number where they never do.

    Args:
        curves: [..., epoch].
        level: one for all curves, or one for each, [...]. A number is rounded to the precision of the curves.
    """
    epochs = curves.epoch.values
    levels = xr.full_like(curves.isel(epoch=0, drop=True), level) if isinstance(level, float) else level
    times = xr.apply_ufunc(
        lambda curve, level: onset(epochs, curve, level), curves, levels, input_core_dims=[["epoch"], []],
        vectorize=True,
    )  # fmt: skip
    logs: xr.DataArray = xr.apply_ufunc(np.log, times)
    return logs


def log_half_time(curves: xr.DataArray) -> xr.DataArray:
    """Return the logarithm of the epoch at which curves first reach half of their maximum."""
    return log_onset(curves, curves.max("epoch", skipna=False) / 2)


def at_maximum(values: xr.DataArray, curves: xr.DataArray) -> xr.DataArray:
    """Return the values at the epoch at which curves [..., epoch] are highest."""
    return values.isel(epoch=curves.fillna(-np.inf).argmax("epoch"))


def sinks(curves: xr.DataArray) -> xr.DataArray:
    """Return how far curves [..., epoch] end below their maximum; not a number if one of the values is none."""
    return curves.max("epoch", skipna=False) - curves.isel(epoch=-1, drop=True)
