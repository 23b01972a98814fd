"""The documentation and the README run: the Python blocks of a page in one namespace, and the commands that it shows.

What a page says that they print is what they print.
"""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cases.printed import assert_prints

ROOT = Path(__file__).parents[1]
# Tutorials are made from the scripts in examples/, which tests/test_examples.py runs.
PAGES = [page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "tutorials"]
TEXTS = sorted([ROOT / "README.md", *PAGES])
# `<!-- file: NAME -->` before a block names the file that a reader makes of it, and `<!-- command: feedalign ... -->`
# before a block of text says which command prints the text.
_BLOCK = re.compile(
    r"(?:^<!-- (?P<what>file|command): (?P<value>.+) -->\n+)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_DECIMAL = re.compile(r"[+-]?\d+\.\d+")


@dataclass(frozen=True)
class Block:
    """A block of code on a page; `line` is the number of its first line, `mark` what a comment says of it."""

    language: str
    code: str
    line: int
    mark: tuple[str, str] | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            found["code"],
            text.count("\n", 0, found.start("code")),
            (found["what"], found["value"]) if found["what"] else None,
        )
        for found in _BLOCK.finditer(text)
    ]


def python(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


def files(page: Path) -> dict[str, str]:
    """What a reader writes into files, by their names."""
    return {block.mark[1]: block.code for block in blocks(page) if block.mark and block.mark[0] == "file"}


COMMANDS = [
    (page, block.mark[1], block.code)
    for page in TEXTS
    for block in blocks(page)
    if block.mark and block.mark[0] == "command"
]


@pytest.mark.parametrize("page", [page for page in TEXTS if python(page)], ids=lambda page: page.stem)
def test_the_python_blocks_of_a_page_run_in_order_and_print_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block of text behind a Python block, and a number in a comment, are what the Python block prints."""
    monkeypatch.chdir(tmp_path)  # a page may write files
    namespace: dict[str, Any] = {"__name__": page.stem}
    printed = ""
    for block in blocks(page):
        if block.language == "python":
            # A traceback names the page's own line. Without dont_inherit this file's __future__ import would hold too.
            code = compile("\n" * block.line + block.code, str(page), "exec", dont_inherit=True)
            capsys.readouterr()
            exec(code, namespace)
            printed = capsys.readouterr().out
            for comment in re.findall(r"  # (.*)$", block.code, re.MULTILINE):
                for number in _DECIMAL.findall(comment):
                    assert number in _DECIMAL.findall(printed), f"{comment}: printed was {printed}"
        elif block.language == "text" and block.mark is None and printed:
            assert_prints(printed, block.code)
            printed = ""


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command", "told"), COMMANDS, ids=[f"{page.stem}: {c}" for page, c, _ in COMMANDS])
def test_a_command_prints_what_the_page_says(page: Path, command: str, told: str, tmp_path: Path) -> None:
    for name, content in files(page).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    program, *arguments = command.split()
    assert program == "feedalign"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}."}
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert_prints(done.stdout + done.stderr if done.returncode else done.stdout, told)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_no_block_of_text_has_measured_numbers_that_nothing_compares(page: Path) -> None:
    before = ""
    for block in blocks(page):
        if block.language == "text" and block.mark is None and before != "python":
            assert _DECIMAL.findall(block.code) == [], f"{page.name}, line {block.line}: say which command prints this"
        before = block.language


def test_no_python_block_is_missed() -> None:
    for page in TEXTS:
        fences = re.findall(r"^\s*(?:```+|~~~+)\s*\{?\.?py.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(python(page)), f"{page.name} has a Python block that no test would run: {fences}"
