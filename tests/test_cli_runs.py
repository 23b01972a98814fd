"""`feedalign runs`: what is there, what one run is, and what `clean` removes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cases.jobs import Square

from feedalign.cli import main
from feedalign.lab.runs import Checkpoints, RunStore, State, ThisProcess, run_jobs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One finished and one interrupted run."""
    run_jobs([Square(3)], tmp_path, ThisProcess(), lambda *_: None)
    Checkpoints(RunStore(tmp_path).work_folder("square", Square(4))).save(State(values={"step": 1}))
    return tmp_path


def test_list_shows_every_run_and_clean_removes_the_interrupted_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "list", "--runs", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert [word in listed for word in ("kind", "finished", "interrupted", "kB")] == [True] * 4
    assert main(["runs", "clean", "--runs", str(folder)]) == 0
    assert "interrupted" in capsys.readouterr().out
    main(["runs", "list", "--runs", str(folder)])
    assert "interrupted" not in capsys.readouterr().out
    assert main(["runs", "clean", "--everything", "--runs", str(folder)]) == 0
    assert list((folder / "square").iterdir()) == []


def test_show_says_what_a_run_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = RunStore(folder).folder("square", Square(3)).name
    assert main(["runs", "show", name[:6], "--runs", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert f"square/{name}: finished" in shown
    assert "number = 3" in shown
    assert "python: 3." in shown


@pytest.mark.parametrize("args", [["show"], ["list", "abc"], ["list", "--everything"], ["show", "zzz"]])
def test_a_wrong_use_says_what_is_expected(args: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", *args, "--runs", str(folder)]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_folder_that_is_not_there_holds_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--runs", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out.split() == ["kind", "hash", "status", "size", "seconds"]
