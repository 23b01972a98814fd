"""`feedalign.lab.reproduce`: run, check, report, from Python."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from tests.cases.experiments import Config, Parabola, Point

import feedalign as fa
from feedalign.errors import ArgumentError, OutputError
from feedalign.lab import reproduction
from feedalign.lab.changes import read_options
from feedalign.lab.experiments import Verdict, alignment_matrices
from feedalign.lab.progress import Progress
from feedalign.lab.report import Result
from feedalign.lab.runs import LocalWorkers, RunStore, ThisProcess

MATRICES = replace(alignment_matrices.CONFIGS["quick"], inputs=4, samples=12, width=10, steps=30, draws=2)
NAMES = ("two-phases", "layerwise")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A small real experiment, and two that take no time, under names of real ones: the second shares jobs."""
    monkeypatch.setitem(alignment_matrices.CONFIGS, "quick", MATRICES)
    few = {"quick": Config(3), "paper": Config(5)}
    experiments: dict[str, Any] = {name: Parabola(name, CONFIGS=few) for name in NAMES}
    experiments["layerwise"].CONFIGS = {"quick": Config(4), "paper": Config(6)}
    experiments["alignment-matrices"] = alignment_matrices
    monkeypatch.setattr(reproduction, "get", experiments.__getitem__)
    monkeypatch.chdir(tmp_path)
    return experiments


def count_computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The x of every point that is computed from now on."""
    computed: list[int] = []
    compute = Point.compute

    def counting(self: Point, desk: Any) -> xr.Dataset:
        computed.append(self.x)
        return compute(self, desk)

    monkeypatch.setattr(Point, "compute", counting)
    return computed


def test_it_returns_runs_and_verdicts_and_writes_the_report(tmp_path: Path) -> None:
    names = ("layerwise", "alignment-matrices")
    done = fa.lab.reproduce(names)
    assert [result.experiment.NAME for result in done.results] == list(names)
    for result in done.results:
        assert (tmp_path / result.run.folder / "result.nc").is_file()
        assert repr(result.verdicts) == repr(result.experiment.check(result.run.dataset))  # of NaN too
    assert done.supported == sum(result.supported for result in done.results)
    page = done.report.read_text(encoding="utf-8")
    assert all(result.run.config_hash in page for result in done.results)
    with pytest.raises(FrozenInstanceError, match="report"):
        done.report = Path("other")  # type: ignore[misc]


def test_two_workers_give_the_same_result_as_this_process() -> None:
    here = fa.lab.reproduce(["alignment-matrices"], runs=Path("here"), executor=ThisProcess())
    workers = fa.lab.reproduce(["alignment-matrices"], runs=Path("workers"), executor=LocalWorkers(2))
    xr.testing.assert_identical(here.results[0].run.dataset, workers.results[0].run.dataset)


def test_a_result_is_made_of_its_jobs_in_their_order_and_takes_their_time() -> None:
    (result,) = fa.lab.reproduce(["layerwise"]).results
    assert result.run.dataset.y.values.tolist() == [0, 1, 4, 9]
    store = RunStore(Path("runs"))
    jobs = [store.read(Point.kind, job) for job in Parabola().jobs(Config(4))]
    assert result.run.seconds == pytest.approx(sum(run.seconds for run in jobs), abs=0.001)


def test_experiments_presets_and_other_base_seeds_share_the_jobs_they_have_in_common(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed = count_computed(monkeypatch)
    fa.lab.reproduce(NAMES)
    assert sorted(computed) == [0, 1, 2, 3]
    fa.lab.reproduce(["two-phases"], preset="paper")
    assert sorted(computed) == [0, 1, 2, 3, 4]
    fa.lab.reproduce(["two-phases"], seeds=1)
    assert sorted(computed) == [0, 0, 1, 1, 2, 2, 3, 4]


def test_progress_and_results_are_told_as_they_come() -> None:
    told: list[str] = []

    @contextmanager
    def watch(name: str) -> Iterator[Progress]:
        told.append(f"{name} begin")
        yield lambda done, total: told.append(f"{done} of {total}")
        told.append(f"{name} end")

    def finished(result: Result) -> None:
        told.append(f"{result.experiment.NAME} checked")

    fa.lab.reproduce(NAMES, progress=watch, finished=finished)
    assert told == [
        "4 jobs begin", "0 of 4000", "500 of 4000", "1000 of 4000", "1500 of 4000", "2000 of 4000", "2500 of 4000",
        "two-phases checked", "3000 of 4000", "3500 of 4000", "layerwise checked", "4000 of 4000", "4 jobs end",
    ]  # fmt: skip


def test_results_are_told_in_the_order_of_the_names_whatever_is_finished_first() -> None:
    told: list[str] = []
    fa.lab.reproduce(["two-phases"])
    fa.lab.reproduce(("layerwise", "two-phases"), finished=lambda result: told.append(result.experiment.NAME))
    assert told == ["layerwise", "two-phases"]


def test_a_finished_run_is_read_and_its_jobs_may_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fa.lab.reproduce(["layerwise"])
    shutil.rmtree(Path("runs") / Point.kind)
    computed = count_computed(monkeypatch)
    again = fa.lab.reproduce(["layerwise"])
    assert computed == []
    xr.testing.assert_identical(again.results[0].run.dataset, first.results[0].run.dataset)


@pytest.mark.parametrize("error", [OutputError("the network has diverged"), ZeroDivisionError("a fault")])
def test_the_failure_of_a_job_names_the_job_and_keeps_what_is_finished(
    error: Exception, monkeypatch: pytest.MonkeyPatch, small: dict[str, Any]
) -> None:
    compute = Point.compute

    def failing(self: Point, desk: Any) -> xr.Dataset:
        if self.x == 3:
            raise error
        return compute(self, desk)

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Point, "compute", failing)
        with pytest.raises(type(error), match=str(error)) as caught:
            fa.lab.reproduce(NAMES, finished=lambda result: told.append(result.experiment.NAME))
    assert caught.value.__notes__ == ["in the job Point(x=3, dataset='', first_seed=0)"]
    assert told == ["two-phases"]
    assert not Path("feedalign-report.html").exists()
    computed = count_computed(monkeypatch)
    fa.lab.reproduce(NAMES)
    assert computed == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["three-phases"]}, "no experiment is called 'three-phases'; expected one of two-phases"),
        ({"names": ["sharing", "two-phases"], "dataset": "digits"}, "two-phases does not take --dataset digits"),
        ({"preset": "huge"}, "preset='huge' is unknown; expected 'quick' or 'paper'"),
        ({"report": Path("folder")}, "report=folder is a folder; give the name of a file, such as folder/report.html"),
        ({"report": Path("file/page.html")}, r"report=file/page\.html cannot be written: file is a file, not a folder"),
        (
            {"report": Path("file/a/page.html")},
            r"cannot be written: .*file is a file, not a folder; give another report",
        ),
        ({"runs": Path("file")}, "runs=file cannot be written: file is a file, not a folder; give another runs"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArgumentError, match=message):
        fa.lab.reproduce(**{"names": NAMES, **arguments})  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before


def test_changes_make_another_run_that_says_what_was_changed() -> None:
    (result,) = fa.lab.reproduce(["layerwise"], changes={"points": 5}).results
    assert result.run.dataset.y.values.tolist() == [0, 1, 4, 9, 16]
    assert [change.words for change in result.changes] == ["points 5 instead of 4"]
    assert result.command == "feedalign reproduce layerwise --preset quick --set points=5"
    page = Path("feedalign-report.html").read_text(encoding="utf-8")
    assert "Changed from the preset" in page
    assert "<li>points 5 instead of 4</li>" in page


def test_without_changes_the_report_speaks_of_none() -> None:
    (result,) = fa.lab.reproduce(["layerwise"]).results
    assert result.changes == ()
    assert "Changed from the preset" not in Path("feedalign-report.html").read_text(encoding="utf-8")


def test_the_command_of_a_changed_run_repeats_it_as_a_shell_reads_it(small: dict[str, Any]) -> None:
    small["layerwise"].CONFIGS["quick"] = Config(2)
    (result,) = fa.lab.reproduce(["layerwise"], changes={"points": 3, "first_seed": 7}).results
    options = [word for word in shlex.split(result.command) if "=" in word]
    (again,) = fa.lab.reproduce(["layerwise"], changes=read_options(options)).results
    assert again.run.folder == result.run.folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": NAMES}, "changes are for one experiment, since each has other fields; got two-phases, layerwise"),
        ({"seeds": 2}, "seeds are counted for the presets as they are; leave out the changes, or the seeds"),
        ({"changes": {"dataset": "mnist"}}, "the data set is no change: choose it with --dataset"),
        ({"changes": {"point": 3}}, "'point' is unknown; known are points, dataset, first_seed"),
    ],
)
def test_changes_that_do_not_fit_are_refused_before_anything_runs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        fa.lab.reproduce(**{"names": ["layerwise"], "changes": {"points": 3}, **arguments})
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("error", [KeyError("x = 3"), ValueError("no such label")])
def test_a_claim_that_cannot_be_judged_with_the_changes_names_them(error: Exception, small: dict[str, Any]) -> None:
    def refusing(_dataset: xr.Dataset) -> list[Verdict]:
        raise error

    small["layerwise"].check = refusing
    with pytest.raises(
        ArgumentError, match=r"layerwise cannot be judged with points 2 instead of 4 .*; keep the values"
    ):
        fa.lab.reproduce(["layerwise"], changes={"points": 2})
    with pytest.raises(type(error), match=r"x = 3|no such label"):  # a fault of the experiment stays one
        fa.lab.reproduce(["layerwise"])


def test_a_place_without_permission_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ArgumentError, match=r"cannot be written: no permission to write in .*; give another runs"):
        fa.lab.reproduce(NAMES)


def test_folders_are_made_where_they_are_missing(tmp_path: Path) -> None:
    done = fa.lab.reproduce(["alignment-matrices"], runs=Path("a/b"), report=Path("c/d/page.html"))
    assert (tmp_path / "c/d/page.html").is_file()
    assert done.results[0].run.folder.parent == Path("a/b/alignment-matrices")
