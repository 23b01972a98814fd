"""Local worker processes: each computes one job after another, and may die without harm to the others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from feedalign.errors import DataError, FeedalignError
from feedalign.lab.runs.jobs import Job, run_job
from feedalign.lab.runs.store import WAIT, RunStore

ATTEMPTS = 3  # how often a job may take its worker with it before the job is given up
TELL = 0.2  # seconds between two reports of a worker's progress

# How many threads OpenMP, OpenBLAS, MKL and numba start.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

# Spawned, not forked: a process with threads, such as torch has, cannot be forked safely.
_processes = multiprocessing.get_context("spawn")


# What a worker sends: first of all "begun", then of its job the share that is done, which is 1 only where the job is
# finished; "elsewhere" instead if another runner computes the job now; or the error that the job has raised.
_Message = float | Literal["begun", "elsewhere"] | Exception


class LocalWorkers:
    """Processes on this machine that compute jobs.

    Args:
        count: how many; the threads of the machine's cores are shared out among them.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, jobs: Sequence[Job], root: Path, tell: Callable[[int, float], None]) -> None:
        """Compute the jobs, and call tell(number of a job, share of it that is done) now and then.

        A worker that dies (killed, out of memory) is replaced, and its job is computed again.

        Raises:
            FeedalignError, OSError: what a job has raised; the other workers are stopped, their checkpoints are kept.
            DataError: a job has taken three workers with it, or workers cannot be started.
        """
        waiting = list(range(len(jobs)))[::-1]
        later: dict[int, float] = {}  # jobs of other runners, and when to try them again
        attempts = [0] * len(jobs)
        crew: dict[Connection, _Worker] = {}
        threads = max(1, (os.cpu_count() or 1) // self.count)
        try:
            while waiting or later or any(worker.busy for worker in crew.values()):
                now = time.monotonic()
                waiting += [job for job, when in later.items() if when <= now]
                later = {job: when for job, when in later.items() if when > now}
                idle = [worker for worker in crew.values() if not worker.busy]
                while waiting and (idle or len(crew) < self.count):
                    worker = idle.pop() if idle else _Worker(root, threads)
                    crew[worker.pipe] = worker
                    number = waiting.pop()
                    worker.give(number, jobs[number])
                while idle and not later:  # nothing is left for them, and they need memory
                    del crew[idle[-1].pipe]
                    idle.pop().dismiss()
                for pipe in wait(list(crew), timeout=WAIT):
                    assert isinstance(pipe, Connection)
                    worker = crew[pipe]
                    message = worker.message()
                    if message is None:  # the worker is gone
                        del crew[pipe]
                        if worker.busy:
                            attempts[worker.job] += 1
                            _check(worker, jobs[worker.job], attempts[worker.job])
                            waiting.append(worker.job)
                    elif isinstance(message, Exception):
                        raise message
                    elif message == "elsewhere":
                        worker.busy = False
                        later[worker.job] = time.monotonic() + WAIT
                        tell(worker.job, 0.0)
                    elif message != "begun":
                        worker.busy = message < 1
                        tell(worker.job, message)
        finally:
            for worker in crew.values():
                worker.stop()


def _check(worker: _Worker, job: Job, attempts: int) -> None:
    """Raise a DataError unless a job whose worker is gone can be tried again."""
    status = worker.status()
    if not worker.begun and status >= 0:  # it ended by itself; the next one would end in the same way
        raise DataError(
            f"a worker process ended with status {status} before it could begin; what it wrote stands above. Each "
            "worker imports the script that starts the workers, so in a script start them below this line: "
            'if __name__ == "__main__":'
        )
    if attempts == ATTEMPTS:
        raise DataError(
            f"{ATTEMPTS} processes died while they computed {job}; the last one ended with status {status}. Is there "
            "enough memory? Try fewer workers"
        )


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, root: Path, threads: int) -> None:
        self.pipe, other = _processes.Pipe()
        self.process = _processes.Process(target=_work, args=(other, root, threads), daemon=True)
        with _no_ctrl_c():
            self.process.start()
        other.close()  # so that the pipe ends when the worker does
        self.begun = self.busy = False
        self.job = -1

    def give(self, number: int, job: Job) -> None:
        self.job, self.busy = number, True
        with contextlib.suppress(BrokenPipeError):  # the worker has died; `message` will say so
            self.pipe.send(job)

    def message(self) -> _Message | None:
        try:
            message: _Message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        self.begun = True
        return message

    def status(self) -> int:
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def dismiss(self) -> None:
        self.pipe.close()
        self.process.join()

    def stop(self) -> None:
        self.process.terminate()
        self.dismiss()


@contextlib.contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Start processes that never see Ctrl-C, which a terminal sends to all of its processes.

    This process sees Ctrl-C once the new process has started. The first process decides what becomes of the workers.
    On Windows, a worker that is just starting sees Ctrl-C.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # what the first start does otherwise, and lets Ctrl-C in
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, root: Path, threads: int) -> None:
    """Compute the jobs that come through the pipe, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # For libraries that a job loads; those that are loaded already are told below.
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    import threadpoolctl
    import torch

    torch.set_num_threads(threads)
    store = RunStore(root)
    pipe.send("begun")
    with threadpoolctl.threadpool_limits(threads):
        while True:
            try:
                job = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send(1.0 if run_job(job, store, _teller(pipe), wait=False) else "elsewhere")
            except BrokenPipeError:  # nobody is there any more to want the result
                return
            except (FeedalignError, OSError) as error:
                pipe.send(error)
            except Exception:  # a fault of the job, which is told with its traceback
                pipe.send(RuntimeError(f"{job} failed in a worker process:\n{traceback.format_exc()}"))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, also where a job never tells its progress."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _teller(pipe: Connection) -> Callable[[float], None]:
    """Return what sends the share of a job that is done, not too often."""
    last = time.monotonic()

    def tell(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= TELL:
            last = time.monotonic()
            pipe.send(share)

    return tell
