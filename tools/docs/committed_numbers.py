"""Markdown extension: numbers of committed results stand in the pages with their source, so that none can go stale.

A page names the source of a number in a comment right behind it, which neither GitHub nor the site shows:

    0.70<!-- step_time[width=2048].dfa_over_backprop -->

The file is benchmarks/results/step_time.json; `layerwise` is results/layerwise.json, and `paper/layerwise` is
results/paper/layerwise.json. In brackets stand words and fields that choose one row of the file: `name=value` is a
field, anything else is a part of the row's description. With the ending .nc the source is a data set of results/, in
brackets stand coordinates, and the number is the mean of the variable over all other dimensions:

    0.913<!-- convolution.nc[variant=random].test_accuracy -->

Building the site puts the number of the source in place of the number of the page, with as many decimals. The command

    python -m tools.docs.committed_numbers

does the same in the pages themselves and in the README, for people who read them on GitHub.
"""

from __future__ import annotations

import csv
import json
import math
import re
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import xarray as xr
from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "benchmarks/results", ROOT / "results")
ROBUSTNESS = ROOT / "results/seed_robustness.csv"
NUMBER = r"[-−]?\d+(?: \d{3})*(?:\.\d+)?(?:e[-−]?\d+)?"
SOURCED = re.compile(
    rf"(?P<number>{NUMBER})(?P<percent> %)?<!-- (?P<file>[\w/-]+(?:\.nc)?)\[(?P<row>[^\]]*)\]\.(?P<field>\w+) -->"
)


class NumbersExtension(Extension):
    """Replace the numbers before Markdown reads the page."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Markdown's own name)
        """Register a first step of a page; comments are HTML, which Markdown's own first steps would hide."""
        md.preprocessors.register(_Numbers(md), "committed-numbers", 101)


class _Numbers(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        return [SOURCED.sub(lambda found: current(found) + (found["percent"] or ""), line) for line in lines]


def current(found: re.Match[str]) -> str:
    """Return the number that the source holds now, written as the page writes it.

    Raises:
        ValueError: there is no such file, row or number.
    """
    value = sourced(found["file"], found["row"], found["field"])
    return written(value * 100 if found["percent"] else value, found["number"])


def sourced(file: str, row: str, field: str) -> Decimal:
    """Return a number of a committed result.

    Raises:
        ValueError: there is no such file, row or number, or several rows fit.
    """
    if file.endswith(".nc"):
        return mean(file, row, field)
    wanted = f"{file}[{row}].{field}"
    rows = committed(file)
    fitting = [each for each in rows if all(_fits(each, part.strip()) for part in row.split(";"))]
    if len(fitting) != 1:
        raise ValueError(f"{wanted}: {len(fitting)} of the {len(rows)} rows of {file}.json fit; name exactly one")
    value = fitting[0].get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        numbers = [name for name, each in fitting[0].items() if isinstance(each, (int, float))]
        raise ValueError(f"{wanted}: {field} is {value!r}, no number; the row has {', '.join(numbers)}")
    return Decimal(str(value))


def mean(file: str, row: str, field: str) -> Decimal:
    """Return the mean of a variable of a committed data set, at the coordinates that `row` chooses.

    Raises:
        ValueError: there is no such file, coordinate, variable or number.
    """
    wanted = f"{file}[{row}].{field}"
    values = data_set(file).get(field)
    if values is None:
        raise ValueError(f"{wanted}: the variables of {file} are {', '.join(map(str, data_set(file)))}")
    for part in filter(None, map(str.strip, row.split(";"))):
        name, _, value = part.partition("=")
        known = [str(each) for each in values.coords[name].values] if name in values.coords else []
        if value not in known:
            raise ValueError(f"{wanted}: {name} of {field} is one of {', '.join(known)}")
        values = values.isel({name: known.index(value)})
    found = float(values.mean())
    if not math.isfinite(found):
        raise ValueError(f"{wanted}: the mean is {found}")
    return Decimal(str(round(found, 9)))


@cache
def data_set(file: str) -> xr.Dataset:
    """Return a committed data set.

    Raises:
        ValueError: there is no such file.
    """
    path = FOLDERS[1] / file
    if not path.exists():
        raise ValueError(f"a page takes a number from {file}, which is not in results")
    return xr.load_dataset(path, engine="h5netcdf")


@cache
def committed(file: str) -> list[dict[str, Any]]:
    """Return the rows of a committed result: of a benchmark as they are, of an experiment the parts of its claim.

    Raises:
        ValueError: there is no such file.
    """
    if file == ROBUSTNESS.stem:
        with ROBUSTNESS.open(encoding="utf-8", newline="") as stream:
            return [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    for path in (folder / f"{file}.json" for folder in FOLDERS):
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            parts: list[dict[str, Any]] = found["parts"] if isinstance(found, dict) else found
            return [_with_interval(part) for part in parts]
    raise ValueError(f"a page takes a number from {file}.json, which is neither in benchmarks/results nor in results")


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _with_interval(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row in which both ends of an interval are numbers with a name."""
    return row | dict(zip(("low", "high"), row["interval"], strict=True)) if "interval" in row else row


def _fits(row: dict[str, Any], part: str) -> bool:
    name, equals, value = part.partition("=")
    if equals and name in row:
        return str(row[name]) == value
    return part in str(row.get("what") or row.get("claim") or row.get("program", ""))


def written(value: Decimal, like: str) -> str:
    """Return a number with as many decimals as another, and with the other's powers of ten and spaces."""
    mantissa, power, _ = like.partition("e")
    step = Decimal(1).scaleb(-len(mantissa.partition(".")[2]))
    if power:
        exponent = value.adjusted() if value else 0
        return f"{value.scaleb(-exponent).quantize(step, ROUND_HALF_UP)}e{exponent}"
    text = f"{value.quantize(step, ROUND_HALF_UP):,}".replace(",", " " if " " in like else "")
    return text if like.startswith("-") else text.replace("-", "−")


def update(text: str) -> str:
    """Return a page with the numbers that the committed results hold now."""
    return SOURCED.sub(lambda found: found[0].replace(found["number"], current(found), 1), text)


def pages() -> list[Path]:
    """Return every file that may take numbers from committed results; the tutorials' pages compute their own."""
    docs = [page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "tutorials" or page.name == "index.md"]
    return [ROOT / "README.md", *sorted(docs)]


def makeExtension(**settings: Any) -> NumbersExtension:  # noqa: N802 (Markdown's own name)
    """Return the extension, for Markdown."""
    return NumbersExtension(**settings)


if __name__ == "__main__":
    for page in pages():
        page.write_text(update(page.read_text(encoding="utf-8")), encoding="utf-8")
