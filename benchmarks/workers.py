"""How much faster do two local workers finish a grid of single-thread jobs than one?

A job trains ten networks 64-64-64-10 on the digits, on one thread; the grid is rules × draws. Both sides start their
workers anew, so the start is counted; they take turns, each into an empty folder. Asked is a factor of at least 1.8 on
a machine with two cores that does nothing else.

`limit` is what the machine itself allows: the same jobs in bare processes that have started before the clock does. It
is below 2 where the cores share memory and clock.

Run: python benchmarks/workers.py
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from _timing import interleaved, save

from feedalign.lab.experiments.common.ensemble_training import EnsembleTraining
from feedalign.lab.runs import LocalWorkers, compute_job, run_jobs

ASKED = 1.8
DRAWS, EPOCHS = 12, 60
JOBS = [
    EnsembleTraining(
        dataset="digits", hidden=(64, 64), activation="tanh", rule=rule, draw=draw, lr=1e-3, epochs=EPOCHS, networks=10
    )
    for rule, draw in itertools.product(("dfa", "backprop"), range(DRAWS))
]


def grid(workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_jobs(JOBS, Path(folder), LocalWorkers(workers), lambda _done, _total: None)


def bare(processes: int) -> float:
    """Return the seconds that bare processes need for the grid, without their start; each has a thread of its own."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(compute_job, JOBS[:processes], chunksize=1)  # loads what a job needs
        begin = time.perf_counter()
        pool.map(compute_job, JOBS, chunksize=1)
        return time.perf_counter() - begin


def main() -> None:
    load = os.getloadavg()[0]
    one, two = interleaved(partial(grid, 1), partial(grid, 2), rounds=3, warm_up=0)
    row = {
        "what": f"{len(JOBS)} single-thread jobs: one worker, over two",
        "ratio": round(one / two, 2),
        "asked": ASKED,
        "limit": round(min(bare(1) for _ in range(2)) / min(bare(2) for _ in range(2)), 2),
        "one_worker_seconds": round(one, 1),
        "two_workers_seconds": round(two, 1),
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
    }
    save("workers", [row])


if __name__ == "__main__":
    main()
