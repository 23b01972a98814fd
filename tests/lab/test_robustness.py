"""Seed robustness: counted over other base seeds, kept in one table, shown in the report."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import pytest

import feedalign as fa
from feedalign.errors import ArgumentError, DataError
from feedalign.lab.experiments import Verdict, alignment_matrices, compute
from feedalign.lab.robustness import SEED_STRIDE, counted, merge, read

NAME = "alignment-matrices"
SMALL = replace(alignment_matrices.CONFIGS["quick"], inputs=4, samples=12, width=10, steps=30, measurements=4, draws=2)
TABLE = Path("results/seed_robustness.csv")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(alignment_matrices.CONFIGS, "quick", SMALL)
    monkeypatch.chdir(tmp_path)


def checks(*effects: float) -> list[list[Verdict]]:
    """One part of a claim, at a base seed for each effect."""
    return [[Verdict('so, quoted "well"', effect, 0.1, 0.0, "above", "a seed", runs=5)] for effect in effects]


def test_every_part_is_counted_over_the_base_seeds() -> None:
    (row,) = counted("two-phases", "abc", "quick", None, checks(1.0, -1.0, 2.0))
    assert (row.part, row.supported, row.seeds, row.lowest, row.highest) == (1, 2, 3, -1.0, 2.0)
    assert row.words == "supported in 2 of 3"
    assert row.threshold == "above 0"


def test_the_table_keeps_other_rows_and_replaces_its_own() -> None:
    old = counted("two-phases", "abc", "quick", None, checks(1.0))
    other = counted("layerwise", "def", "quick", "mnist", checks(1.0, 1.0))
    new = counted("two-phases", "abd", "quick", None, checks(-1.0))
    merge(TABLE, old)
    merge(TABLE, other)
    assert read(TABLE) == [*other, *old]
    merge(TABLE, new)
    assert read(TABLE) == [*other, *new]


def test_no_table_says_nothing_and_a_damaged_one_is_an_error() -> None:
    assert read(TABLE) == []
    merge(TABLE, counted("two-phases", "abc", "quick", None, checks(1.0)))
    TABLE.write_text(TABLE.read_text().replace("part", "port"))
    with pytest.raises(DataError, match=r"seed_robustness\.csv is no table of seed robustness .*delete it"):
        read(TABLE)
    with pytest.raises(DataError, match="no table of seed robustness"):
        fa.lab.reproduce([NAME])
    assert not Path("runs").exists()


def test_reproduce_runs_other_base_seeds_and_shows_their_counts() -> None:
    done = fa.lab.reproduce([NAME], seeds=2)
    parts = len(done.results[0].verdicts)
    assert [(row.experiment, row.part, row.seeds) for row in done.robustness] == [
        (NAME, part, 2) for part in range(1, parts + 1)
    ]
    assert repr(read(TABLE)) == repr(list(done.robustness))  # of NaN too
    page = html.unescape(done.report.read_text(encoding="utf-8"))
    assert page.count(f"supported in {done.robustness[0].supported} of 2") >= 1
    # The counts are those of the runs at the other base seeds.
    others = [replace(SMALL, first_seed=SEED_STRIDE * i) for i in (1, 2)]
    runs = [compute(alignment_matrices, other) for other in others]
    expected = counted(
        NAME, done.results[0].run.config_hash, "quick", None, [alignment_matrices.check(run) for run in runs]
    )
    assert repr(list(done.robustness)) == repr(expected)


def test_the_report_shows_no_counts_of_another_config(monkeypatch: pytest.MonkeyPatch) -> None:
    fa.lab.reproduce([NAME], seeds=1)
    assert "of 1</td>" in fa.lab.reproduce([NAME]).report.read_text(encoding="utf-8")
    monkeypatch.setitem(alignment_matrices.CONFIGS, "quick", replace(SMALL, width=11))
    assert "of 1</td>" not in fa.lab.reproduce([NAME]).report.read_text(encoding="utf-8")


def test_a_negative_number_of_seeds_is_refused() -> None:
    with pytest.raises(ArgumentError, match="seeds=-1 is negative; expected a number of further base seeds"):
        fa.lab.reproduce([NAME], seeds=-1)
