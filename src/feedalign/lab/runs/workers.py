"""Local worker processes: each computes one job after another, and may die without harm to the others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from feedalign.errors import DataError, FeedalignError
from feedalign.lab.runs.jobs import Job, run_job
from feedalign.lab.runs.store import WAIT, RunStore

ATTEMPTS = 3  # how often a job may take its worker with it before the job is given up
TELL = 0.2  # seconds between two reports of a worker's progress

# Spawned, not forked: a process with threads, such as torch has, cannot be forked safely.
_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Report:
    """What a worker says of its job.

    Attributes:
        job: number of the job.
        share: how much of the job is done, from 0 to 1; 1 only where the job is finished.
        busy: the job is being computed by somebody else, and is to be tried again.
    """

    job: int
    share: float
    busy: bool = False


class LocalWorkers:
    """Processes on this machine that compute jobs.

    Args:
        count: how many; the threads of the machine's cores are shared out among them.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, jobs: Sequence[Job], root: Path, tell: Callable[[int, float], None]) -> None:
        """Compute the jobs. A worker that dies (killed, out of memory) is replaced, and its job is computed again.

        Args:
            jobs: what to compute.
            root: folder of all runs.
            tell: called with the number of a job and the share of it that is done, now and then.

        Raises:
            FeedalignError: what a job has raised; the other workers are stopped, and their checkpoints are kept.
            DataError: a job has taken three workers with it.
        """
        waiting = list(range(len(jobs)))[::-1]
        later: dict[int, float] = {}  # jobs of other runners, and when to try them again
        attempts = [0] * len(jobs)
        crew: dict[Connection, _Worker] = {}
        threads = max(1, (os.cpu_count() or 1) // self.count)
        try:
            while waiting or later or crew:
                now = time.monotonic()
                waiting += [job for job, when in later.items() if when <= now]
                later = {job: when for job, when in later.items() if when > now}
                while waiting and len(crew) < self.count:
                    worker = _Worker(root, threads)
                    crew[worker.pipe] = worker
                    worker.give(waiting.pop(), jobs)
                for pipe in wait(list(crew), timeout=WAIT):
                    assert isinstance(pipe, Connection)
                    worker = crew[pipe]
                    message = worker.message()
                    if message is None:  # the worker is gone
                        del crew[pipe]
                        attempts[worker.job] += 1
                        if attempts[worker.job] == ATTEMPTS:
                            raise DataError(
                                f"{ATTEMPTS} processes died while they computed {jobs[worker.job]}; the last one ended "
                                f"with status {worker.status()}. Is there enough memory? Try fewer workers"
                            )
                        waiting.append(worker.job)
                        continue
                    if isinstance(message, Exception):
                        raise message
                    tell(message.job, message.share)
                    if message.busy:
                        later[message.job] = time.monotonic() + WAIT
                    elif message.share < 1:
                        continue
                    if waiting:
                        worker.give(waiting.pop(), jobs)
                    else:
                        worker.dismiss()
                        del crew[pipe]
        finally:
            for worker in crew.values():
                worker.stop()


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, root: Path, threads: int) -> None:
        self.pipe, other = _processes.Pipe()
        self.process = _processes.Process(target=_work, args=(other, root, threads), daemon=True)
        self.process.start()
        other.close()  # so that the pipe ends when the worker does
        self.job = -1

    def give(self, number: int, jobs: Sequence[Job]) -> None:
        self.job = number
        with contextlib.suppress(BrokenPipeError):  # the worker has died; `message` will say so
            self.pipe.send((number, jobs[number]))

    def message(self) -> Report | Exception | None:
        try:
            message: Report | Exception = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        return message

    def status(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def dismiss(self) -> None:
        self.pipe.close()
        self.process.join()

    def stop(self) -> None:
        self.process.terminate()
        self.dismiss()


def _work(pipe: Connection, root: Path, threads: int) -> None:
    """Compute the jobs that come through the pipe, until the pipe is closed."""
    # Ctrl-C reaches all processes of a terminal; the first process decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import threadpoolctl
    import torch

    torch.set_num_threads(threads)
    store = RunStore(root)
    with threadpoolctl.threadpool_limits(threads):
        while True:
            try:
                number, job = pipe.recv()
            except EOFError:
                return
            tell = _Teller(pipe, number)
            try:
                done = run_job(job, store, tell, wait=False)
                pipe.send(Report(number, float(done), busy=not done))
            except BrokenPipeError:  # nobody is there any more to want the result
                return
            except FeedalignError as error:
                pipe.send(error)
            except Exception:  # a fault of the job, which is told with its traceback
                pipe.send(RuntimeError(f"{job} failed in a worker process:\n{traceback.format_exc()}"))


class _Teller:
    """Sends the progress of a job, not too often."""

    def __init__(self, pipe: Connection, number: int) -> None:
        self.pipe, self.number, self.last = pipe, number, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self.last >= TELL:
            self.last = time.monotonic()
            self.pipe.send(Report(self.number, min(done / max(total, 1), 0.999)))
