"""The table in docs/how-to/compatibility.md is true: each of its cells is run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from tests.cases.holding import measured, right
from tests.cases.situations import SITUATIONS

import feedalign as fa
from feedalign.errors import FeedalignError

ROOT = Path(__file__).parents[1]
COLUMNS: dict[str, list[Any]] = {
    "DFA": [fa.DFA],
    "learned feedback": [fa.DirectKolenPollack, fa.ConditionedDFA],
    "FA family": [fa.FA, fa.SignSymmetry, fa.KolenPollack],
    "measures": [fa.DFA],
}
# Rows that need several processes or more words, and the tests that hold them.
ELSEWHERE = {
    "Parts compiled one by one (`part.compile()`)": "tests/rules/test_compiled_parts.py",
    "`DistributedDataParallel(net)`": "tests/rules/test_distributed.py",
    "`fully_shard(net.model)` (FSDP2)": "tests/rules/test_sharded.py",
    "Full backward hooks on a point": "tests/rules/test_backward_hooks.py",
}


def table() -> dict[str, dict[str, str]]:
    """Return the cells by row and column."""
    text = (ROOT / "docs" / "how-to" / "compatibility.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    head, _, *rows = lines
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


CELLS = [
    (row, column, rule)
    for row, cells in table().items()
    if row not in ELSEWHERE
    for column, cell in cells.items()
    if cell != "no meaning"
    for rule in COLUMNS[column]
]


def test_the_table_has_a_row_for_each_situation_and_no_other() -> None:
    rows = table()
    assert set(rows) == {*SITUATIONS, *ELSEWHERE}
    for row, cells in rows.items():
        assert list(cells) == list(COLUMNS), row
        assert set(cells.values()) <= {"yes", "refused", "no meaning"}, row
    for file in ELSEWHERE.values():
        assert (ROOT / file).exists()


def test_a_measure_is_said_to_work_only_where_it_is_run() -> None:
    for row, situation in SITUATIONS.items():
        takes_measures = "hold" in inspect.signature(situation).parameters
        assert takes_measures or table()[row]["measures"] == "no meaning", row


# Torch's own tracing of an autograd function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(("row", "column", "rule"), CELLS, ids=lambda part: getattr(part, "__name__", part))
def test_a_cell_is_true(row: str, column: str, rule: Any) -> None:
    hold = measured if column == "measures" else right
    if table()[row][column] == "yes":
        SITUATIONS[row](rule, hold)
        return
    with pytest.raises(FeedalignError, match=r"\w+ \w+ \w+.*[;,:] "):
        SITUATIONS[row](rule, hold)
