"""From a config to a grid of jobs, and from their results back to one data set."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import xarray as xr

from feedalign.lab.runs import Desk, Job

AnyJob = TypeVar("AnyJob", bound=Job)
Case = TypeVar("Case")


def jobs_on_grid(job: type[AnyJob], config: Any, **axes: Iterable[Any]) -> list[AnyJob]:
    """Return a job for each point of a grid. Every job has the fields that its class and the config have in common.

    Args:
        job: class of the jobs.
        config: what all jobs share.
        **axes: the values of each further field; the last field changes fastest.
    """
    wanted = {field.name for field in fields(job)}
    shared = {field.name: getattr(config, field.name) for field in fields(config) if field.name in wanted}
    return [job(**shared, **dict(zip(axes, point, strict=True))) for point in itertools.product(*axes.values())]


def in_turn(desk: Desk, cases: Sequence[Case]) -> Iterator[Case]:
    """Give the cases of a job one after another, and tell the job's progress after each."""
    for done, case in enumerate(cases, start=1):
        yield case
        desk.progress(done, len(cases))


def on_grid(results: Sequence[xr.Dataset], **axes: Sequence[Any] | int) -> xr.Dataset:
    """Put results side by side along new dimensions.

    Args:
        results: one for each point of the grid; the last dimension changes fastest.
        **axes: the coordinates of each new dimension, or its size if the dimension has no coordinates.
    """
    sizes = {name: axis if isinstance(axis, int) else len(axis) for name, axis in axes.items()}
    coordinates = {name: list(axis) for name, axis in axes.items() if not isinstance(axis, int)}
    parts = list(results)
    for name, size in reversed(sizes.items()):  # the last dimension first: its results follow one another
        parts = [xr.concat(parts[i : i + size], name) for i in range(0, len(parts), size)]
    (dataset,) = parts
    return dataset.assign_coords(coordinates)
