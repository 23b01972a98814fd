"""From a config to its jobs, and from the results of the jobs back to one data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import xarray as xr

from feedalign.lab.runs import Job


def chosen(config: Any, job: type[Job]) -> dict[str, Any]:
    """Return the fields of a config that a job of this class has too, by name: what all jobs of the config share."""
    wanted = {field.name for field in fields(job)}
    return {field.name: getattr(config, field.name) for field in fields(config) if field.name in wanted}


def on_grid(results: Sequence[xr.Dataset], **sizes: int) -> xr.Dataset:
    """Put results side by side along new dimensions.

    Args:
        results: one for each point of the grid; the last dimension changes fastest.
        **sizes: of the new dimensions, in order.
    """
    if not sizes:
        (only,) = results
        return only
    dim, size = next(iter(sizes.items()))
    inner = {name: sizes[name] for name in list(sizes)[1:]}
    part = len(results) // size
    return xr.concat([on_grid(results[i * part : (i + 1) * part], **inner) for i in range(size)], dim)
