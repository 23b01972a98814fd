"""Files and functions stay small: one idea a file, one screen a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "benchmarks", "examples", "tools", "compatibility")
MOST_LINES = 300
MOST_LINES_OF_A_FUNCTION = 60


def too_long(code: str) -> Iterator[str]:
    """Yield what is longer than it may be in the text of a file; decorators and the docstring count as lines."""
    lines = len(code.splitlines())
    if lines > MOST_LINES:
        yield f"{lines} lines, expected at most {MOST_LINES}; split the file by idea"
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1 - lines_of_docstring(node)
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{node.name} has {lines} lines, expected at most {MOST_LINES_OF_A_FUNCTION}; split the function"


def lines_of_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_and_no_function_is_too_long(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [f"{file.relative_to(ROOT)}: {wrong}" for file in files for wrong in too_long(file.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("a = 1\n" * 301, "301 lines, expected at most 300"),
        ("def f():\n" + "    a = 1\n" * 60, "f has 61 lines, expected at most 60"),
        ("class A:\n    async def f(self):\n" + "        a = 1\n" * 60, "f has 61 lines"),
    ],
)
def test_the_check_finds(code: str, wrong: str) -> None:
    (found,) = too_long(code)
    assert wrong in found


@pytest.mark.parametrize(
    "code", ["a = 1\n" * 300, 'def f():\n    """A long\n' + "    text.\n" * 90 + '    """\n' + "    a = 1\n" * 59]
)
def test_the_check_lets_pass(code: str) -> None:
    assert list(too_long(code)) == []
