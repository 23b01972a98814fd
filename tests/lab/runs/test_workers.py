"""Worker processes: Ctrl-C, the end of the process that started them, scripts that forget the guard, and waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.cases.jobs import Diverged, Square

from feedalign.errors import DivergenceError
from feedalign.lab.runs import LocalWorkers, RunStore, ThisProcess, run_jobs

ROOT = Path(__file__).parents[3]
JOBS = [Square(number, seconds=0.2 * number) for number in range(1, 9)]
SWEEP = f"""
import signal, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.cases.jobs import Square
from feedalign.lab.runs import LocalWorkers, run_jobs

signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background, a child ignores SIGINT
jobs = [Square(number, seconds=0.2 * number) for number in range(1, 9)]
"""
START = "run_jobs(jobs, Path(sys.argv[1]), LocalWorkers(2), lambda done, total: None)\n"
GUARDED = f'{SWEEP}\nif __name__ == "__main__":\n    {START}'


def silent(_done: int, _total: int) -> None:
    """Report nothing."""


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def begun(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a script in a group of processes of its own, as a terminal does; whoever is left at the end is killed."""
    path = folder / "script.py"
    path.write_text(script)
    command = [sys.executable, str(path), str(folder / "runs")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finished(root: Path) -> dict[Square, int]:
    """The jobs whose result can be read, and when it was written."""
    store = RunStore(root)
    there = [job for job in JOBS if store.has(job.kind, job)]
    return {job: (store.read(job.kind, job).folder / "result.nc").stat().st_mtime_ns for job in there}


def nobody_is_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C in a terminal", "kill -INT of the first process"])
def test_ctrl_c_leaves_no_process_and_loses_no_finished_job(to_all: bool, tmp_path: Path) -> None:
    with begun(GUARDED, tmp_path) as process:
        until(lambda: len(finished(tmp_path / "runs")) >= 2)
        before = finished(tmp_path / "runs")
        os.killpg(process.pid, signal.SIGINT) if to_all else process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert said.count("Traceback") == 1, "the workers say nothing"
        assert said.endswith("KeyboardInterrupt\n")
        until(lambda: nobody_is_left(process.pid), 5)
        assert len(before) < len(JOBS)
        kept = finished(tmp_path / "runs")
        assert before.items() <= kept.items()
        runs = run_jobs(JOBS, tmp_path / "runs", ThisProcess(), silent)
        assert [int(run.dataset.square) for run in runs] == [job.number**2 for job in JOBS]
        assert kept.items() <= finished(tmp_path / "runs").items(), "nothing was computed again"


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
def test_ctrl_c_while_the_workers_start_is_told_once(tmp_path: Path) -> None:
    with begun(GUARDED, tmp_path) as process:
        until(lambda: workers_of(process.pid) > 0)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert said.count("Traceback") == 1
        assert said.endswith("KeyboardInterrupt\n")
        until(lambda: nobody_is_left(process.pid), 5)


def workers_of(group: int) -> int:
    """How many processes of a group are workers, by their command lines."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pgid,args"], capture_output=True, text=True, check=True).stdout
    return sum(line.split()[0] == str(group) and "spawn_main" in line for line in listed.splitlines()[1:])


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    long = GUARDED.replace("0.2 * number", "600.0")  # they tell their progress once a minute
    with begun(long, tmp_path) as process:
        until(lambda: len(list((tmp_path / "runs").glob("square/*.work/log.txt"))) == 2)
        process.kill()
        process.communicate(timeout=20)
        until(lambda: nobody_is_left(process.pid), 10)


@pytest.mark.slow
def test_a_script_without_the_guard_is_told_what_it_lacks(tmp_path: Path) -> None:
    with begun(SWEEP + START, tmp_path) as process:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "a worker process ended with status 1 before it could begin" in said.splitlines()[-1]
        assert said.splitlines()[-1].endswith('in a script start them below this line: if __name__ == "__main__":')
        assert not (tmp_path / "runs").exists()


def test_time_and_state_of_an_error_survive_the_way_from_a_worker(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="the trajectory has diverged") as caught:
        run_jobs([Diverged(2.5)], tmp_path, LocalWorkers(1), silent)
    assert (caught.value.time, caught.value.state) == (2.5, [2.5])


def test_a_worker_that_waits_for_another_runner_is_kept_and_then_goes_on(tmp_path: Path) -> None:
    """The job is held for two seconds, in which the worker asks for it again and again; a new worker takes longer."""
    store, job = RunStore(tmp_path), Square(7)
    claimed, told = threading.Event(), threading.Event()

    def hold() -> None:
        with store.claimed(job.kind, job, wait=False) as mine:
            assert mine
            claimed.set()
            told.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    claimed.wait(10)
    reports: list[int] = []

    def progress(done: int, _total: int) -> None:
        reports.append(done)
        if len(reports) == 8:
            told.set()

    (run,) = run_jobs([job], tmp_path, LocalWorkers(1), progress)
    other.join()
    assert int(run.dataset.square) == 49
    assert reports[-1] == 1000
