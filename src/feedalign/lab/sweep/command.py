"""`feedalign sweep`: everything but arguments and printing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feedalign.errors import ArgumentError
from feedalign.lab.files import check_folder, write_file
from feedalign.lab.own_training import Run, TrainConfig, run_of
from feedalign.lab.progress import Watch, unwatched
from feedalign.lab.runs import Executor, StoredRun, ThisProcess, config_hash, gathered, run_jobs
from feedalign.lab.sweep.drawing import plot
from feedalign.lab.sweep.gathering import gather, text_of
from feedalign.lab.sweep.grid import Point, SweepConfig, points_of
from feedalign.lab.sweep.words import csv_of
from feedalign.style import svg

NAME = "sweep"


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
    found = gathered(
        NAME, Identity(sweep, hashes), jobs, lambda results: gather(sweep, points, hashes, results), runs
    )  # fmt: skip
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
