"""Run many jobs: each of them once, on as many processes or machines as there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import xarray as xr

from feedalign.checks import one_of, whole_number
from feedalign.errors import ArgumentError
from feedalign.lab.progress import Progress
from feedalign.lab.runs.jobs import Job, run_job
from feedalign.lab.runs.store import RunStore, StoredRun
from feedalign.lab.runs.workers import LocalWorkers


class Executor(Protocol):
    """Who computes jobs."""

    def run(self, jobs: Sequence[Job], root: Path, tell: Callable[[int, float], None]) -> None:
        """Compute the jobs, and call tell(number of a job, share of it that is done) now and then."""


class ThisProcess:
    """Computes one job after another, here."""

    def run(self, jobs: Sequence[Job], root: Path, tell: Callable[[int, float], None]) -> None:
        """Compute the jobs; wait for those that another process computes now."""
        store = RunStore(root)
        for number, job in enumerate(jobs):
            run_job(job, store, partial(tell, number), wait=True)
            tell(number, 1.0)


def run_jobs(
    jobs: Sequence[Job],
    root: Path,
    executor: Executor,
    progress: Progress,
    finished: Callable[[Job], None] = lambda _job: None,
) -> list[StoredRun]:
    """Return the runs of the jobs, in order. What is finished is read; a job that stands twice is computed once.

    Args:
        jobs: any jobs.
        root: folder of all runs.
        executor: who computes what is not finished: `ThisProcess`, `LocalWorkers` or `RayCluster`.
        progress: called with (thousandths done, thousandths in all): first with what was finished before, then now and
            then; not at all if everything is finished.
        finished: called with each job that is finished, once, in any order; first with those that were finished before.

    Raises:
        DataError: a run cannot be written or read, or a job's process died again and again.
    """
    store = RunStore(root)
    different = {job: store.has(job.kind, job) for job in jobs}
    ready = [job for job, there in different.items() if there]
    todo = [job for job, there in different.items() if not there]
    shares = [0.0] * len(todo)

    def tell(number: int, share: float) -> None:
        if share == 1 and shares[number] < 1:
            finished(todo[number])
        shares[number] = share
        progress(int(1000 * (len(ready) + sum(shares))), 1000 * len(different))

    for job in ready:
        finished(job)
    if todo:
        progress(1000 * len(ready), 1000 * len(different))
        executor.run(todo, root, tell)
    return [store.read(job.kind, job) for job in jobs]


def gathered(
    kind: str, config: Any, jobs: Sequence[Job], gather: Callable[[list[xr.Dataset]], xr.Dataset], root: Path
) -> StoredRun:
    """Return the run of a config that is put together from the runs of jobs; its seconds are those of its jobs.

    Args:
        kind: names the folder of all runs of this kind.
        config: frozen dataclass of plain values.
        jobs: all finished.
        gather: makes the result from the results of the jobs, in their order.
        root: folder of all runs.

    Raises:
        DataError: a job is not finished, a run cannot be read, or the folder cannot be written.
    """
    store = RunStore(root)

    def put_together() -> tuple[xr.Dataset, float]:
        runs = [store.read(job.kind, job) for job in jobs]
        return gather([run.dataset for run in runs]), sum(run.seconds for run in runs)

    store.write_once(kind, config, put_together)
    return store.read(kind, config)


def chosen_executor(name: str, workers: int, address: str | None) -> Executor:
    """Return the executor that a command line asks for.

    Args:
        name: "local" or "ray".
        workers: number of local processes; 1 computes in this process.
        address: of a Ray cluster; None starts Ray on this machine.

    Raises:
        ArgumentError: the name is unknown, there are no workers, or there is an address without Ray.
        MissingExtraError: Ray is not installed.
    """
    one_of("executor", name, ("local", "ray"))
    whole_number("workers", workers, 1)
    if name == "ray":
        from feedalign.lab.runs.cluster import RayCluster

        return RayCluster(address)
    if address is not None:
        raise ArgumentError(f"address={address!r} is where a Ray cluster is; give executor ray with it")
    return ThisProcess() if workers == 1 else LocalWorkers(workers)
