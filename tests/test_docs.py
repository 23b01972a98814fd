"""The documentation and the README run: the Python blocks of a page, in order, in one namespace."""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# Tutorials are made from the scripts in examples/, which tests/test_examples.py runs.
PAGES = [page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "tutorials"]
TEXTS = sorted([ROOT / "README.md", *PAGES])
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """Every block, after as many empty lines as stand before it: a traceback then names the page's own line."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in _BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in TEXTS if blocks(page)], ids=lambda page: page.stem)
def test_the_python_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a page may write files
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        # Without dont_inherit this file's own __future__ import would hold in the page too.
        exec(compile(block, str(page), "exec", dont_inherit=True), namespace)


def test_no_python_block_is_missed() -> None:
    for page in TEXTS:
        fences = re.findall(r"^\s*(?:```+|~~~+)\s*\{?\.?py.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(blocks(page)), f"{page.name} has a Python block that no test would run: {fences}"
