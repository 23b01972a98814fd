"""A job: a piece of work with a result of its own, named by everything that decides the result."""

from __future__ import annotations

import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr

from feedalign.errors import DataError
from feedalign.lab.files import write_file
from feedalign.lab.progress import Progress
from feedalign.lab.runs.checkpoints import Checkpoints
from feedalign.lab.runs.store import KEPT, RunStore, StoredRun


@dataclass(frozen=True)
class Desk:
    """What a job has at hand while it computes.

    Attributes:
        progress: to be called with (done, total), in any unit, now and then.
        checkpoints: where a long job saves what it has reached, and finds it again.
    """

    progress: Progress
    checkpoints: Checkpoints

    def log(self, text: str) -> None:
        """Add a line to the run's log file."""
        self.checkpoints.log(text)

    def keep(self, name: str, content: bytes) -> None:
        """Put a file beside the result: it is there when the finished run is.

        Raises:
            DataError: the file cannot be written.
        """
        path = self.checkpoints.folder / KEPT / name
        try:
            write_file(path, content)
        except OSError as error:
            raise DataError(
                f"cannot write {path} ({error}); make room for {len(content):,} bytes and run the same command again: "
                "it goes on from the last checkpoint"
            ) from error


@dataclass(frozen=True)
class Job(ABC):
    """A frozen dataclass of plain values; all of its fields decide the result, and name the folder of the run.

    A job travels to another process, so its class stands in a module, and `compute` uses nothing but its fields.
    """

    kind: ClassVar[str]
    """Names the folder of all jobs of the class."""

    @property
    def gpus(self) -> float:
        """What part of a GPU the job takes; only the Ray executor asks for it."""
        return 0.0

    @abstractmethod
    def compute(self, desk: Desk) -> xr.Dataset:
        """Return the result, the same to the last bit whenever it is computed, in one go or with interruptions."""


def compute_job(job: Job) -> xr.Dataset:
    """Return the result of a job, computed here and now; nothing is kept on disk."""
    with tempfile.TemporaryDirectory() as folder:
        return job.compute(Desk(lambda _done, _total: None, Checkpoints(Path(folder))))


def run_job(job: Job, store: RunStore, tell: Callable[[float], None], *, wait: bool) -> bool:
    """Compute a job unless it is finished; return whether the job is finished now, as `RunStore.write_once` does.

    `tell` is called with the share of the job that is done. The share stays below 1: only a job whose result is stored
    is done.

    Raises:
        DataError: the result or a checkpoint cannot be written.
    """

    def compute() -> tuple[xr.Dataset, float]:
        checkpoints = Checkpoints(store.work_folder(job.kind, job))
        try:
            dataset = job.compute(Desk(lambda done, total: tell(min(done / max(total, 1), 0.999)), checkpoints))
        except Exception as error:
            error.add_note(f"in the job {job}")
            raise
        return dataset, checkpoints.seconds()

    return store.write_once(job.kind, job, compute, wait=wait)


def run_once(kind: str, config: Any, compute: Callable[[], xr.Dataset], root: Path) -> StoredRun:
    """Return the run of this config, computing it only if `root` does not hold it yet.

    For what is one piece, and computed in this process. A second process that wants the same run waits for the first.

    Args:
        kind: names the folder of all runs of this kind.
        config: frozen dataclass of plain values.
        compute: makes the result.
        root: folder of all runs.

    Raises:
        DataError: the folder cannot be written, or exists but cannot be read as a finished run.
    """

    def timed() -> tuple[xr.Dataset, float]:
        begin = time.perf_counter()
        dataset = compute()
        return dataset, time.perf_counter() - begin

    store = RunStore(root)
    store.write_once(kind, config, timed)
    return store.read(kind, config)
