"""What lies in a folder of runs, what it is, and what `clean` removes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cases.jobs import Square

from feedalign.errors import ArgumentError, DataError
from feedalign.lab.runs import Checkpoints, RunStore, State, ThisProcess, clean, entries, run_jobs, show
from feedalign.lab.runs.store import SCHEMA_VERSION


def squares(root: Path, *numbers: int) -> list[Path]:
    return [run.folder for run in run_jobs([Square(n) for n in numbers], root, ThisProcess(), lambda *_: None)]


def rewrite_schema(folder: Path, schema: int) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "schema_version": schema}))


def statuses(root: Path) -> dict[str, str]:
    return {entry.hash: entry.status for entry in entries(root)}


def test_a_folder_that_is_not_there_holds_no_runs(tmp_path: Path) -> None:
    assert entries(tmp_path / "runs") == []


def test_every_kind_of_run_is_told_apart_and_only_the_useless_ones_are_removed(tmp_path: Path) -> None:
    finished, stale, newer, damaged = squares(tmp_path, 1, 2, 3, 4)
    rewrite_schema(stale, SCHEMA_VERSION - 1)
    rewrite_schema(newer, SCHEMA_VERSION + 1)
    (damaged / "environment.json").unlink()
    store = RunStore(tmp_path)
    interrupted, running = store.work_folder("square", Square(5)), store.work_folder("square", Square(6))
    for work in (interrupted, running):
        Checkpoints(work).save(State(values={"step": 1}))
    (tmp_path / "square" / f".{interrupted.stem}.abc").mkdir()  # half-written when the process was killed
    with store.claimed("square", Square(6), wait=False):
        assert statuses(tmp_path) == {
            finished.name: "finished",
            stale.name: "stale",
            newer.name: "newer",
            damaged.name: "damaged",
            interrupted.stem: "interrupted",
            running.stem: "running",
        }
        removed = {entry.hash for entry in clean(tmp_path)}
        assert removed == {stale.name, damaged.name, interrupted.stem}
        kept = {path.name for path in (tmp_path / "square").iterdir() if path.suffix != ".lock"}
        assert kept == {finished.name, newer.name, running.name}
        assert {entry.hash for entry in clean(tmp_path, everything=True)} == {finished.name}


def test_an_entry_says_what_was_run_and_how_large_it_is(tmp_path: Path) -> None:
    (folder,) = squares(tmp_path, 7)
    entry = show(tmp_path, folder.name[:5])
    assert (entry.kind, entry.hash, entry.config) == ("square", folder.name, {"number": 7, "seconds": 0.0})
    assert entry.size == sum(path.stat().st_size for path in folder.iterdir())
    assert entry.seconds >= 0


def test_a_prefix_of_none_or_of_several_is_refused(tmp_path: Path) -> None:
    squares(tmp_path, 1, 2)
    with pytest.raises(
        ArgumentError, match=r"no run in .* has a hash that begins with 'xyz'; expected the beginning of a hash"
    ):
        show(tmp_path, "xyz")
    with pytest.raises(ArgumentError, match=r"2 runs in .* begin with '' \(square/.*, square/.*\); give more digits"):
        show(tmp_path, "")


@pytest.mark.fault
def test_a_run_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    (folder,) = squares(tmp_path, 1)
    rewrite_schema(folder, SCHEMA_VERSION + 1)
    with pytest.raises(DataError, match=f"{folder} is no finished run .*it has schema {SCHEMA_VERSION + 1}"):
        squares(tmp_path, 1)
