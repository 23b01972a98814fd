"""The runs of a sweep: each trained, and all of them put side by side in one data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from feedalign.errors import ArgumentError
from feedalign.lab.files import check_folder, write_file
from feedalign.lab.own_training import Run, TrainConfig, diverged, run_of
from feedalign.lab.progress import Watch, unwatched
from feedalign.lab.runs import Executor, StoredRun, ThisProcess, config_hash, gathered, run_jobs
from feedalign.lab.sweep.grid import Point, SweepConfig, controls_of, points_of
from feedalign.lab.sweep.showing import csv_of, plot
from feedalign.style import svg

NAME = "sweep"
QUANTITIES = ("test_accuracy", "train_accuracy", "test_loss", "train_loss")
ALIGNMENTS = ("gradient_alignment", "weight_alignment")
UNUSED = "–"


@dataclass(frozen=True)
class Identity:
    """What decides the result of a sweep.

    Attributes:
        sweep: the grid.
        runs: hashes of the runs, which tell changed data and code of the user's too.
    """

    sweep: SweepConfig
    runs: tuple[str, ...]


def compute(
    sweep: SweepConfig, runs: Path = Path("runs"), executor: Executor | None = None, progress: Watch = unwatched
) -> StoredRun:
    """Train every run of a sweep and its controls, unless `runs` holds them already, and put them side by side.

    Args:
        sweep: the grid.
        runs: folder of the runs; made if missing. The runs lie where `feedalign train` puts them.
        executor: who computes what is not finished; this process unless given.
        progress: called with "3 runs"; returns a context manager that gives a function of (done, total) to be called.

    Returns:
        The sweep; its folder holds table.csv and figure.svg beside result.nc.

    Raises:
        ArgumentError: a run has a wrong value, or things do not fit together. Raised before any work.
        DataError: a data set was not fetched or is damaged, or a run cannot be stored or read.
    """
    check_folder("runs", runs)
    points = points_of(sweep)
    tried = dict[tuple[TrainConfig, str], str]()
    jobs = [_job(point, tried) for point in points]
    with progress(f"{len(set(jobs))} runs") as tell:
        run_jobs(jobs, runs, executor or ThisProcess(), tell)
    hashes = tuple(config_hash(job.kind, job) for job in jobs)
    identity = Identity(sweep, hashes)
    found = gathered(NAME, identity, jobs, lambda results: gather(sweep, points, hashes, results), runs)
    write_file(found.folder / "table.csv", csv_of(found.dataset).encode())
    write_file(found.folder / "figure.svg", svg(plot(found.dataset)))
    return found


def _job(point: Point, tried: dict[tuple[TrainConfig, str], str]) -> Run:
    """Return the job of a run, after it was tried out; an error says which run it is about."""
    try:
        return run_of(point.config, tried)
    except ArgumentError as error:
        values = {"rule": point.config.rule, **point.values}
        raise ArgumentError(f"{', '.join(f'{n} {text_of(v)}' for n, v in values.items())}: {error}") from error


def gather(
    sweep: SweepConfig, points: Sequence[Point], hashes: Sequence[str], results: Sequence[xr.Dataset]
) -> xr.Dataset:
    """Return a data set along `run`: final accuracies, losses and alignment, `recovery`, and the values of the grid.

    Alignment is the mean over the layers that have one. A run that diverged has none of these numbers. `diverged_at` is
    the step after which its loss was no longer finite, or its last step, where its loss had grown tenfold. `hashes` are
    the names of the folders of the runs.
    """
    ends = [_end(result) for result in results]
    dataset = xr.Dataset(
        {name: ("run", [end[name] for end in ends]) for name in (*QUANTITIES, *ALIGNMENTS, "diverged_at")},
        coords={
            "folder": ("run", list(hashes)),
            "is_control": ("run", [point.is_control for point in points]),
            "rule": ("run", [point.config.rule for point in points]),
        },
    )
    accuracy = {point.config: end["test_accuracy"] for point, end in zip(points, ends, strict=True)}
    recovery = []
    for point in points:
        backprop, readout = (accuracy[config] for config in controls_of(sweep, point))
        recovery.append(share_recovered(accuracy[point.config], backprop, readout))
    dataset["recovery"] = ("run", recovery, {"long_name": "(accuracy − readout only) / (backprop − readout only)"})
    for name, _ in sweep.grid:
        if name != "rule":
            dataset.coords[f"grid_{name}"] = ("run", [text_of(point.values.get(name, UNUSED)) for point in points])
    return dataset


def share_recovered(accuracy: float, backprop: float, readout: float) -> float:
    """Return which share of backprop's gain over the readout alone an accuracy is; NaN if backprop gains nothing."""
    return (accuracy - readout) / (backprop - readout) if backprop > readout else math.nan


def text_of(value: Any) -> str:
    """Return a value of the grid as it is shown."""
    if isinstance(value, tuple):
        return " ".join(map(text_of, value)) or "()"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _end(result: xr.Dataset) -> dict[str, float]:
    end = result.isel(step=-1)
    found = dict.fromkeys((*QUANTITIES, *ALIGNMENTS, "diverged_at"), math.nan)
    if diverged(result):
        return found | {"diverged_at": float(end.step if end.diverged_at.isnull() else end.diverged_at)}
    found |= {name: float(end[name]) for name in QUANTITIES}
    return found | {name: float(end[name].mean()) for name in ALIGNMENTS if name in end}
