"""Run many jobs: each of them once, on as many processes or machines as there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from feedalign.lab.progress import Progress
from feedalign.lab.runs.jobs import Job, run_job
from feedalign.lab.runs.store import RunStore, StoredRun


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

            def progress(done: int, total: int, number: int = number) -> None:
                tell(number, done / max(total, 1))

            run_job(job, store, progress, wait=True)
            tell(number, 1.0)


def run_jobs(jobs: Sequence[Job], root: Path, executor: Executor, progress: Progress) -> list[StoredRun]:
    """Return the runs of the jobs, in order. What is finished is read; a job that stands twice is computed once.

    Args:
        jobs: any jobs.
        root: folder of all runs.
        executor: who computes what is not finished: `ThisProcess`, `LocalWorkers` or `RayCluster`.
        progress: called with (thousandths done, thousandths in all), now and then.

    Raises:
        DataError: a run cannot be written or read, or a job's process died again and again.
    """
    store = RunStore(root)
    todo = [job for job in dict.fromkeys(jobs) if not store.has(job.kind, job)]
    shares = [0.0] * len(todo)
    finished = len(set(jobs)) - len(todo)

    def tell(number: int, share: float) -> None:
        shares[number] = share
        progress(int(1000 * (finished + sum(shares))), 1000 * (finished + len(todo)))

    if todo:
        executor.run(todo, root, tell)
    return [store.read(job.kind, job) for job in jobs]
