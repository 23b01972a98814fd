"""Files that a job puts beside its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray as xr

from feedalign.errors import DataError
from feedalign.lab.runs import Checkpoints, Desk, Job, RunStore, ThisProcess, run_jobs


class StoppedError(Exception):
    """Raised in place of a kill."""


@dataclass(frozen=True)
class Keeping(Job):
    kind = "keeping"
    stops: bool = False

    def compute(self, desk: Desk) -> xr.Dataset:
        desk.keep("weights.bin", b"old")
        desk.keep("weights.bin", b"new")
        if self.stops:
            raise StoppedError("after the file")
        return xr.Dataset({"one": 1})


def test_a_kept_file_lies_beside_the_result_and_nowhere_else(tmp_path: Path) -> None:
    (run,) = run_jobs([Keeping()], tmp_path, ThisProcess(), lambda _done, _total: None)
    assert (run.folder / "weights.bin").read_bytes() == b"new"
    assert (run.folder / "result.nc").exists()
    assert list(run.folder.parent.iterdir()) == [run.folder]


def test_of_a_job_that_stops_no_file_is_taken_for_a_result(tmp_path: Path) -> None:
    job = Keeping(stops=True)
    with pytest.raises(StoppedError, match="after the file"):
        run_jobs([job], tmp_path, ThisProcess(), lambda _done, _total: None)
    store = RunStore(tmp_path)
    assert not store.has(job.kind, job)
    assert not store.folder(job.kind, job).exists()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    desk = Desk(lambda _done, _total: None, Checkpoints(tmp_path))
    with pytest.raises(DataError, match="make room for 3 bytes and run the same command again"):
        desk.keep("weights.bin", b"new")
