"""What a program printed, beside what a page says that it prints."""

from __future__ import annotations

import re

import numpy as np

_NUMBER = re.compile(r"(?<![\w.])[+\-−]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")
_FOLDER = re.compile(r"\bruns/\S+")  # its name changes with every change of the program
# Sums of many roundings: another machine, or another version of a library, rounds otherwise.
ROUNDING = 1e-9
CLOSE, LAST_DIGITS = 0.05, 3


def assert_prints(printed: str, told: str) -> None:
    """Check that the lines which a page shows are, one below the other, among the lines that were printed.

    Words must be the same. Numbers may differ by 5 %, or by 3 in the last digit that the page shows: a training ends at
    nearly, not exactly, the same numbers on another machine.
    """
    lines, wanted = _lines(printed), _lines(told)
    words = [_words(line) for line in lines]
    looked_for = [_words(line) for line in wanted]
    fitting = [i for i in range(len(lines)) if words[i : i + len(wanted)] == looked_for]
    assert fitting, f"the page shows\n{told}\nand what was printed is\n{printed}"
    shown = lines[fitting[0] : fitting[0] + len(wanted)]
    for line, own in zip(wanted, shown, strict=True):
        assert _close(_NUMBER.findall(own), _NUMBER.findall(line)), f"the page shows\n{line}\nand printed was\n{own}"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _words(line: str) -> str:
    """A line without its numbers, and with single spaces: a number may be longer than that of the page."""
    return " ".join(_NUMBER.sub("#", _FOLDER.sub("runs/", line)).split())


def _close(printed: list[str], told: list[str]) -> bool:
    for one, other in zip(printed, told, strict=True):
        found, expected = (float(number.replace("−", "-")) for number in (one, other))
        mantissa = other.partition("e")[0]
        last_digit = 10.0 ** -len(mantissa.partition(".")[2]) * 10.0 ** int(other.partition("e")[2] or 0)
        rounding = max(abs(found), abs(expected)) < ROUNDING
        if not rounding and not np.isclose(found, expected, rtol=CLOSE, atol=LAST_DIGITS * last_digit):
            return False
    return True
