"""Whatever stops a sweep, it goes on to the results of an unbroken one, to the last bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tests.cases.jobs import Square, Training

from feedalign.lab.runs import Checkpoints, Desk, LocalWorkers, RunStore, ThisProcess, compute_job, run_jobs

pytestmark = [pytest.mark.fault, pytest.mark.skipif(os.name != "posix", reason="signals to sessions")]

# Half of the kills in this process alone, half with two workers.
KILLS = int(os.environ.get("FEEDALIGN_KILLS", "20")) // 2
JOBS = [Training(seed, epochs=6, pause=0.01) for seed in range(4)]
Record = Callable[[str, object], None]


def silent(_done: int, _total: int) -> None:
    """Report nothing."""


def sweep(root: Path, jobs: list[Any], workers: int) -> None:
    """Run jobs in a session of its own, so that all of its processes can be killed at once."""
    os.setsid()
    executor = LocalWorkers(workers) if workers else ThisProcess()
    run_jobs(jobs, root, executor, silent)


# A process that has loaded everything already starts the sweeps, so that they need not load torch each time.
PROCESSES: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else None)
PROCESSES.set_forkserver_preload(["tests.cases.jobs", "feedalign.lab.runs"])


def begin(root: Path, jobs: list[Any], workers: int = 0) -> BaseProcess:
    process: BaseProcess = PROCESSES.Process(target=sweep, args=(root, jobs, workers))
    process.start()
    return process


def traces(root: Path) -> list[tuple[str, int]]:
    """What lies in the folder, which changes as soon as a job goes on."""
    found = []
    for path in root.glob("*/*"):
        for part in (path, path / "log.txt", *path.glob("checkpoint-*")):
            try:
                found.append((str(part), part.stat().st_mtime_ns))
            except OSError:  # gone meanwhile, or no log
                continue
    return found


def checkpoints(root: Path) -> set[str]:
    return {path for path, _ in traces(root) if "checkpoint-" in path}


def wait_for(process: BaseProcess, condition: Callable[[], bool]) -> None:
    """Wait until something is so, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.exitcode is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def one_worker(session: int) -> int:
    """The number of one process of a sweep that is not the first, or the first if there are no workers."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,sid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return next((int(pid) for pid, sid, args in rows if sid == str(session) and "spawn_main" in args), session)


def killed_once(root: Path, moments: random.Random, workers: int) -> int:
    """Begin the sweep and kill it at a random moment; return how often it was killed, 0 if it came to its end."""
    before, saved = traces(root), checkpoints(root)
    process = begin(root, JOBS, workers)
    assert process.pid is not None
    stage = moments.choice(["it starts", "it has begun", "it has begun", "it trains", "it trains"])
    if stage != "it starts":
        wait_for(process, lambda: traces(root) != before)
    if stage == "it trains":
        wait_for(process, lambda: bool(checkpoints(root) - saved))
    process.join(moments.uniform(0, 1))
    how = moments.choice(["everything", "the first process", "a worker"])
    kills = 0
    if how == "a worker" and process.exitcode is None:
        worker = one_worker(process.pid)
        kill(worker)
        kills += worker != process.pid
        process.join(moments.uniform(0, 1))
    if process.exitcode is None:
        # Workers whose first process is gone end by themselves.
        kill(process.pid, everything=how != "the first process")
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), "it ends in no other way"
    return kills + (process.exitcode != 0)


def kill(process: int, *, everything: bool = False) -> None:
    """Kill a process; everything: with all processes of its session, if it has one of its own already."""
    with suppress(ProcessLookupError):  # it has just ended
        try:
            (os.killpg if everything else os.kill)(process, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(process, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments_a_sweep_ends_at_the_same_bits(
    workers: int, tmp_path: Path, record_property: Record
) -> None:
    moments = random.Random(7)
    expected = [run.dataset for run in run_jobs(JOBS, tmp_path / "unbroken", ThisProcess(), silent)]
    kills = sweeps = lost = resumed = 0
    while kills < KILLS:
        root = tmp_path / f"broken {sweeps}"
        while kills < KILLS and (now := killed_once(root, moments, workers)):
            kills += now
        runs = run_jobs(JOBS, root, LocalWorkers(workers) if workers else ThisProcess(), silent)
        lost += sum(not run.dataset.identical(dataset) for run, dataset in zip(runs, expected, strict=True))
        logs = [run.folder / "log.txt" for run in runs]
        resumed += sum(log.read_text().count("goes on from") for log in logs if log.exists())
        # Nothing but the results is left: no lock, no half-written folder, no checkpoint.
        left = {path.name for path in (root / "training").iterdir()}
        assert left == {run.config_hash for run in runs}
        sweeps += 1
    record_property("kills", kills)
    record_property("lost", lost)
    assert lost == 0
    assert resumed >= kills / 4, "many of the kills hit a job that is under way"


def under_way(root: Path, job: Training) -> tuple[BaseProcess, Path]:
    """Begin a job in a process, wait for some checkpoints, and return the process and the job's folder."""
    work = RunStore(root).work_folder(job.kind, job)
    process = begin(root, [job])
    wait_for(process, lambda: any(path.name >= "checkpoint-000005" for path in work.glob("checkpoint-*")))
    return process, work


def interrupted(root: Path, job: Training) -> Path:
    """Begin a job, kill it after some checkpoints, and return its folder."""
    process, work = under_way(root, job)
    process.kill()
    process.join()
    assert list(work.glob("checkpoint-*"))
    return work


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["tensors.safetensors", "values.json", "sha256"])
def test_a_truncated_checkpoint_costs_one_interval_and_no_bit(
    victim: str, tmp_path: Path, record_property: Record
) -> None:
    job = JOBS[0]
    last = sorted(interrupted(tmp_path, job).glob("checkpoint-*"))[-1]
    (last / victim).write_bytes((last / victim).read_bytes()[:-5])
    with pytest.warns(UserWarning, match=f"the checkpoint {last} cannot be used"):
        (run,) = run_jobs([job], tmp_path, ThisProcess(), silent)
    unbroken = compute_job(job)
    record_property("kills", 1)
    record_property("lost", int(not run.dataset.identical(unbroken)))
    xr.testing.assert_identical(run.dataset, unbroken)
    log = (run.folder / "log.txt").read_text()
    before = f"checkpoint-{int(last.name.removeprefix('checkpoint-')) - 1:06d}"
    assert f"goes on from {before}" in log


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits another process, which only Linux does")
def test_a_disk_that_is_full_for_a_while_costs_no_bit(tmp_path: Path, record_property: Record) -> None:
    """A limit on the size of files stands in for the disk. It comes into force when the job has saved five times."""
    resource = pytest.importorskip("resource")
    job = JOBS[1]
    process, work = under_way(tmp_path, job)
    assert process.pid is not None
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (500, 500))
    process.join()
    assert process.exitcode == 1, "it ends with an error in words, by itself"
    assert {path.name.partition("-")[0] for path in work.iterdir()} == {"checkpoint"}, "nothing half-written is left"
    assert len(list(work.iterdir())) == 2
    (run,) = run_jobs([job], tmp_path, ThisProcess(), silent)
    unbroken = compute_job(job)
    record_property("kills", 1)
    record_property("lost", int(not run.dataset.identical(unbroken)))
    xr.testing.assert_identical(run.dataset, unbroken)
    assert "goes on from checkpoint" in (run.folder / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_loss_that_is_no_number_is_a_result_like_any_other(tmp_path: Path, record_property: Record) -> None:
    """The sweep goes on after it, and a killed job ends at the same numbers, NaN included."""
    diverging = Training(0, epochs=6, pause=0.01, lr=1e30)
    interrupted(tmp_path, diverging)
    run, beside = run_jobs([diverging, Square(3)], tmp_path, ThisProcess(), silent)
    assert np.isnan(run.dataset.output[-1]).all()
    assert np.isfinite(run.dataset.output[0]).all()
    assert int(beside.dataset.square) == 9
    unbroken = compute_job(diverging)
    record_property("kills", 1)
    record_property("lost", int(not run.dataset.identical(unbroken)))
    xr.testing.assert_identical(run.dataset, unbroken)
    assert "goes on from checkpoint" in (run.folder / "log.txt").read_text()


class KilledError(Exception):
    """Raised in place of a kill."""


def test_a_run_that_is_killed_at_90_percent_loses_at_most_one_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock on which each step takes a second: a checkpoint every minute, killed after 900 of 1000 steps."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    job, reached = Training(0, epochs=100, every=60.0), list[int]()

    def killed(done: int, _total: int) -> None:
        clock[0] += 1
        reached.append(done)
        if len(reached) == 900:
            raise KilledError("at 90 %")

    with pytest.raises(KilledError, match="at 90 %"):
        job.compute(Desk(killed, Checkpoints(tmp_path, every=60.0)))
    lost_at = reached[-1]
    reached.clear()
    job.compute(Desk(lambda done, _total: reached.append(done), Checkpoints(tmp_path, every=60.0)))
    assert lost_at == 899
    assert 0 <= lost_at - reached[0] <= 60
    assert reached[-1] == 1000
