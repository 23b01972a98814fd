"""Many jobs at once: what is told while they run, what is put together of them, and who computes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from tests.cases.jobs import Square, Wrong

from feedalign.errors import ArgumentError, DataError, OutputError
from feedalign.lab.runs import (
    LocalWorkers,
    RunStore,
    ThisProcess,
    chosen_executor,
    compute_job,
    gathered,
    run_jobs,
)

EXECUTORS: list[Any] = [ThisProcess(), LocalWorkers(2)]


@dataclass(frozen=True)
class Sum:
    """A config whose result is the sum of squares."""

    numbers: tuple[int, ...]


def silent(_done: int, _total: int) -> None:
    """Report nothing."""


def add(datasets: list[xr.Dataset]) -> xr.Dataset:
    return xr.Dataset({"sum": sum(int(dataset.square) for dataset in datasets)})


def never(_datasets: list[xr.Dataset]) -> xr.Dataset:
    raise AssertionError("put together again")


@pytest.mark.parametrize("executor", EXECUTORS, ids=["here", "two workers"])
def test_a_job_is_told_once_and_only_when_its_result_can_be_read(executor: Any, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    run_jobs([Square(1)], tmp_path, ThisProcess(), silent)
    told: list[Square] = []

    def finished(job: Any) -> None:
        assert int(store.read(job.kind, job).dataset.square) == job.number**2
        told.append(job)

    jobs = [Square(2), Square(1), Square(2), Square(3)]
    run_jobs(jobs, tmp_path, executor, silent, finished)
    assert told[0] == Square(1), "what was finished before comes first"
    assert sorted(job.number for job in told) == [1, 2, 3]


def test_what_is_told_of_progress_begins_with_what_was_finished_before(tmp_path: Path) -> None:
    run_jobs([Square(1)], tmp_path, ThisProcess(), silent)
    told: list[tuple[int, int]] = []
    run_jobs([Square(1), Square(2)], tmp_path, ThisProcess(), lambda *now: told.append(now))
    assert told[0] == (1000, 2000)
    assert told[-1] == (2000, 2000)
    assert told == sorted(told)


@dataclass(frozen=True)
class Hasty(Square):
    """Says that it is done before it returns its result."""

    kind = "hasty"

    def compute(self, desk: Any) -> xr.Dataset:
        desk.progress(10, 10)
        return super().compute(desk)


def test_a_job_that_says_it_is_done_is_not_finished_before_its_result_is_stored(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    stored: list[bool] = []
    run_jobs([Hasty(1)], tmp_path, ThisProcess(), silent, lambda job: stored.append(store.has(job.kind, job)))
    assert stored == [True]


@pytest.mark.parametrize("executor", EXECUTORS, ids=["here", "two workers"])
def test_a_failure_names_its_job_and_keeps_the_jobs_that_are_finished(executor: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the network has diverged") as caught:
        run_jobs([Square(1), Wrong(fault=False)], tmp_path, ThisProcess(), silent)
    assert caught.value.__notes__ == ["in the job Wrong(fault=False)"]
    run_jobs([Square(1)], tmp_path, executor, lambda *_: pytest.fail("computed again"))


def test_a_result_is_put_together_once_and_its_seconds_are_those_of_its_jobs(tmp_path: Path) -> None:
    jobs = [Square(number, seconds=0.02) for number in (1, 2, 3)]
    runs = run_jobs(jobs, tmp_path, ThisProcess(), silent)
    whole = gathered("sum", Sum((1, 2, 3)), jobs, add, tmp_path)
    assert int(whole.dataset["sum"]) == 14
    assert whole.seconds == pytest.approx(sum(run.seconds for run in runs), abs=0.001)
    assert whole.folder == RunStore(tmp_path).folder("sum", Sum((1, 2, 3)))
    again = gathered("sum", Sum((1, 2, 3)), jobs, never, tmp_path)
    xr.testing.assert_identical(again.dataset, whole.dataset)


def test_a_result_is_not_put_together_of_jobs_that_are_not_finished(tmp_path: Path) -> None:
    run_jobs([Square(1)], tmp_path, ThisProcess(), silent)
    with pytest.raises(DataError, match=r"square/\w{12} is no finished run"):
        gathered("sum", Sum((1, 2)), [Square(1), Square(2)], add, tmp_path)
    assert not RunStore(tmp_path).has("sum", Sum((1, 2)))


def test_a_job_computed_here_and_now_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert int(compute_job(Square(5)).square) == 25
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_chooses_who_computes() -> None:
    assert isinstance(chosen_executor("local", 1, None), ThisProcess)
    workers = chosen_executor("local", 3, None)
    assert isinstance(workers, LocalWorkers)
    assert workers.count == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cloud", 1, None), "executor='cloud' is unknown; expected one of local, ray"),
        (("local", 0, None), "workers must be a whole number of at least 1, got 0"),
        (("local", 2, "auto"), "address='auto' is where a Ray cluster is; give executor ray with it"),
    ],
)
def test_a_wrong_choice_says_what_is_expected(arguments: tuple[str, int, str | None], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        chosen_executor(*arguments)
