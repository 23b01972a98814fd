"""`feedalign.lab.reproduce`: run, check, report, from Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import xarray as xr

import feedalign as fa
from feedalign.errors import ArgumentError
from feedalign.lab.experiments import Progress, alignment_matrices, relu_recovery
from feedalign.lab.report import Result

MATRICES = replace(alignment_matrices.CONFIGS["quick"], inputs=4, samples=12, width=10, steps=30, draws=2)
RECOVERY = replace(relu_recovery.CONFIGS["quick"], teachers=(1,), most_students=2, end_time=50.0, runs=2)
NAMES = ("relu-recovery", "alignment-matrices")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(alignment_matrices.CONFIGS, "quick", MATRICES)
    monkeypatch.setitem(relu_recovery.CONFIGS, "quick", RECOVERY)
    monkeypatch.chdir(tmp_path)


def test_it_returns_runs_and_verdicts_and_writes_the_report(tmp_path: Path) -> None:
    done = fa.lab.reproduce(NAMES)
    assert [result.experiment.NAME for result in done.results] == list(NAMES)
    for result in done.results:
        assert (tmp_path / result.run.folder / "result.nc").is_file()
        assert repr(result.verdicts) == repr(result.experiment.check(result.run.dataset))  # of NaN too
    assert done.supported == sum(result.supported for result in done.results)
    page = done.report.read_text(encoding="utf-8")
    assert all(result.run.config_hash in page for result in done.results)
    with pytest.raises(FrozenInstanceError, match="report"):
        done.report = Path("other")  # type: ignore[misc]


def test_progress_and_results_are_told_as_they_come() -> None:
    told: list[str] = []

    @contextmanager
    def watch(name: str) -> Iterator[Progress]:
        told.append(f"{name} begins")
        yield lambda done, total: told.append(f"{name} {done} of {total}") if done == total else None
        told.append(f"{name} ends")

    def finished(result: Result) -> None:
        told.append(f"{result.experiment.NAME} checked")

    fa.lab.reproduce(["alignment-matrices"], progress=watch, finished=finished)
    name = "alignment-matrices"
    assert told == [f"{name} begins", f"{name} 10 of 10", f"{name} ends", f"{name} checked"]


def test_a_finished_run_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fa.lab.reproduce(["alignment-matrices"])
    monkeypatch.setattr(alignment_matrices, "run", lambda *_: pytest.fail("ran again"))
    again = fa.lab.reproduce(["alignment-matrices"])
    xr.testing.assert_identical(again.results[0].run.dataset, first.results[0].run.dataset)


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


def test_a_place_without_permission_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ArgumentError, match=r"cannot be written: no permission to write in .*; give another runs"):
        fa.lab.reproduce(NAMES)


def test_folders_are_made_where_they_are_missing(tmp_path: Path) -> None:
    done = fa.lab.reproduce(["alignment-matrices"], runs=Path("a/b"), report=Path("c/d/page.html"))
    assert (tmp_path / "c/d/page.html").is_file()
    assert done.results[0].run.folder.parent == Path("a/b/alignment-matrices")
