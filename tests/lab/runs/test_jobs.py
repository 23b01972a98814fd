"""Jobs: each is computed once, by whatever process, and a process may die, be interrupted or come twice."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cases.jobs import Deadly, Square, Wrong

from feedalign.errors import DataError, OutputError
from feedalign.lab.runs import LocalWorkers, RunStore, ThisProcess, run_jobs

PROCESSES = multiprocessing.get_context("spawn")
EXECUTORS: list[Any] = [ThisProcess(), LocalWorkers(2)]


def silent(_done: int, _total: int) -> None:
    """Report nothing."""


@pytest.mark.parametrize("executor", EXECUTORS, ids=["here", "two workers"])
def test_every_job_is_computed_once_and_read_in_order(executor: Any, tmp_path: Path) -> None:
    jobs = [Square(3), Square(1), Square(3), Square(2)]
    told: list[tuple[int, int]] = []
    runs = run_jobs(jobs, tmp_path, executor, lambda done, total: told.append((done, total)))
    assert [int(run.dataset.square) for run in runs] == [9, 1, 9, 4]
    assert sorted(path.name for path in (tmp_path / "square").glob("????????????")) == sorted(
        {run.config_hash for run in runs}
    )
    assert told[-1] == (3000, 3000)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    again = run_jobs(jobs, tmp_path, executor, lambda *_: pytest.fail("computed again"))
    assert [run.seconds for run in again] == [run.seconds for run in runs]
    assert "squares 3" in (runs[0].folder / "log.txt").read_text()


def test_a_job_that_two_experiments_need_is_shared(tmp_path: Path) -> None:
    first = run_jobs([Square(4)], tmp_path, ThisProcess(), silent)
    second = run_jobs([Square(4), Square(5)], tmp_path, LocalWorkers(2), silent)
    assert second[0].folder == first[0].folder
    assert second[0].environment == first[0].environment


@pytest.mark.fault
def test_a_dead_worker_is_replaced_and_its_job_computed_again(tmp_path: Path) -> None:
    runs = run_jobs([Deadly(2, str(tmp_path)), Square(2)], tmp_path / "runs", LocalWorkers(2), silent)
    assert [int(runs[0].dataset.deaths), int(runs[1].dataset.square)] == [2, 4]


def test_a_job_that_kills_every_worker_is_given_up_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 processes died while they computed Deadly\(deaths=9.*status -9.*memory"):
        run_jobs([Deadly(9, str(tmp_path))], tmp_path / "runs", LocalWorkers(1), silent)


@pytest.mark.parametrize("executor", EXECUTORS, ids=["here", "two workers"])
def test_an_error_of_a_job_arrives_as_itself(executor: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the network has diverged"):
        run_jobs([Wrong(fault=False)], tmp_path, executor, silent)


def test_a_fault_of_a_job_arrives_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)Wrong\(fault=True\) failed in a worker.*ZeroDivisionError: a fault"):
        run_jobs([Wrong(fault=True)], tmp_path, LocalWorkers(1), silent)


def sweep(root: Path, jobs: list[Any], workers: int) -> None:
    executor = LocalWorkers(workers) if workers else ThisProcess()
    run_jobs(jobs, root, executor, silent)


@pytest.mark.fault
def test_two_sweeps_on_one_folder_compute_each_job_once(tmp_path: Path) -> None:
    jobs = [Square(number, seconds=0.3) for number in range(6)]
    both = [PROCESSES.Process(target=sweep, args=(tmp_path, jobs, workers)) for workers in (0, 2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    for job in jobs:
        log = (RunStore(tmp_path).folder(job.kind, job) / "log.txt").read_text()
        assert log.count("squares") == 1


@pytest.mark.fault
def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    process = PROCESSES.Process(target=sweep, args=(tmp_path, [Square(1, seconds=60)], 0))
    process.start()
    store = RunStore(tmp_path)
    work = store.work_folder("square", Square(1, seconds=60))
    deadline = time.monotonic() + 30
    while not (work / "log.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with store.claimed("square", Square(1, seconds=60), wait=False) as mine:
        assert not mine
    process.kill()
    process.join()
    with store.claimed("square", Square(1, seconds=60), wait=False) as mine:
        assert mine
