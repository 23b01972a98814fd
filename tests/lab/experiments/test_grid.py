"""A grid of jobs, and their results side by side: each point of the result is the result of the job at this point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import xarray as xr

from feedalign.lab.experiments.common.grid import in_turn, jobs_on_grid, on_grid
from feedalign.lab.runs import Checkpoints, Desk, Job, compute_job


@dataclass(frozen=True)
class Config:
    base: float = 100.0
    draws: int = 2


@dataclass(frozen=True)
class Sum(Job):
    kind: ClassVar[str] = "sum"
    base: float
    letter: str
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        return xr.Dataset({"total": self.base + 10 * ord(self.letter) + self.draw})


JOBS = jobs_on_grid(Sum, Config(), letter="ab", draw=range(2))


def test_jobs_have_the_config_s_fields_and_the_last_axis_changes_fastest() -> None:
    assert [Sum(100.0, "a", 0), Sum(100.0, "a", 1), Sum(100.0, "b", 0), Sum(100.0, "b", 1)] == JOBS


def test_a_result_stands_where_its_job_stands() -> None:
    found = on_grid([compute_job(job) for job in JOBS], letter=["a", "b"], draw=2)
    assert found.total.dims == ("letter", "draw")
    assert "draw" not in found.coords  # a number gives a dimension without coordinates
    for job in JOBS:
        assert float(found.total.sel(letter=job.letter).isel(draw=job.draw)) == float(compute_job(job).total)


def test_too_few_results_do_not_pass_for_a_grid() -> None:
    with pytest.raises(ValueError, match="sizes"):
        on_grid([compute_job(job) for job in JOBS[:3]], letter=["a", "b"], draw=2)


def test_progress_is_told_after_each_case(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    desk = Desk(lambda done, total: told.append((done, total)), Checkpoints(tmp_path))
    seen = [(case, len(told)) for case in in_turn(desk, "abc")]
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    assert told == [(1, 3), (2, 3), (3, 3)]
