"""Jobs on a Ray cluster: one machine, or many."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feedalign.errors import DataError, FeedalignError
from feedalign.extras import needs
from feedalign.lab.files import replacing
from feedalign.lab.runs.jobs import Job, run_job
from feedalign.lab.runs.store import WAIT, RunStore
from feedalign.lab.runs.workers import ATTEMPTS

with needs("cluster", __name__):
    import ray


class RayCluster:
    """Computes jobs with Ray, which starts a job of a lost worker or machine again on another one.

    A worker keeps its checkpoints and its result in a folder of the same name on its own machine, and sends the result
    back. On a shared file system that folder is the same everywhere, so a job that is started again on another machine
    goes on from its checkpoint; without one it begins again.

    Args:
        address: of a cluster to join, such as "auto" or "ray://HOST:10001"; None starts Ray on this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def run(self, jobs: Sequence[Job], root: Path, tell: Callable[[int, float], None]) -> None:
        """Compute the jobs, and call tell(number of a job, 1.0) when that job is finished.

        Raises:
            FeedalignError, OSError: what a job has raised.
            DataError: no cluster answers at the address, or a job has taken three workers with it.
        """
        store = RunStore(root)
        with _connected(self.address):
            compute: Any = ray.remote(max_retries=ATTEMPTS - 1)(_finished)

            def begin(number: int) -> Any:
                job = jobs[number]
                return compute.options(num_gpus=job.gpus, name=job.kind).remote(job, root.absolute())

            pending = {begin(number): number for number in range(len(jobs))}
            while pending:
                ready, _ = ray.wait(list(pending), timeout=WAIT)
                for reference in ready:
                    number = pending.pop(reference)
                    files = _result(reference, jobs[number])
                    if files is None:  # another runner computes the job now
                        time.sleep(WAIT)  # or asking again would keep a worker busy
                        pending[begin(number)] = number
                        continue
                    _keep(files, store.folder(jobs[number].kind, jobs[number]))
                    tell(number, 1.0)


def _finished(job: Job, root: Path) -> dict[str, bytes] | None:
    """Compute a job on the machine where this runs; return the files of its run, or None if another runner has it."""
    store = RunStore(root)
    if not run_job(job, store, lambda _share: None, wait=False):
        return None
    return {path.name: path.read_bytes() for path in store.folder(job.kind, job).iterdir()}


def _result(reference: Any, job: Job) -> dict[str, bytes] | None:
    """Return what a task gives, or raise what the job has raised."""
    try:
        files: dict[str, bytes] | None = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, (FeedalignError, OSError)):
            raise cause from None
        raise RuntimeError(f"{job} failed in a worker process:\n{error}") from None
    except ray.exceptions.RayError as error:
        raise DataError(
            f"{ATTEMPTS} processes died while they computed {job} ({error}); is there enough memory?"
        ) from None
    return files


def _keep(files: dict[str, bytes], folder: Path) -> None:
    """Write the files of a run that was computed on another machine."""
    if folder.exists():
        return
    try:
        with replacing(folder) as aside:
            aside.mkdir()
            for name, content in files.items():
                (aside / name).write_bytes(content)
    except OSError as error:
        raise DataError(f"cannot write {folder} ({error}); make room, or choose another folder") from error


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Be connected to a cluster; one that is there already is left as it is."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None if address else False
        )
    except (ConnectionError, ValueError) as error:
        raise DataError(
            f"no Ray cluster answers at {address!r} ({error}); leave the address out to start one"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
