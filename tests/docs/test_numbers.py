"""Numbers of committed results stand in the pages with their source, and are those of the source."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
from markdown import markdown
from tools.docs import committed_numbers as numbers

PAGES = numbers.pages()
TOOL = "python -m tools.docs.committed_numbers"
# A number with a point, as a reader sees one: no version (0.0.16), and no part of a name, an address or a power.
DECIMAL = re.compile(r"(?<![\w.,^])\d+\.\d+(?!\w|\.\d)")
# Goals and thresholds were set before anything was measured.
GOAL = re.compile(r"[≤≥<>] ?\d+(\.\d+)?")
CODE = re.compile(r"^(?: *)(```+|~~~+).*?^ *\1|`[^`]*`", re.MULTILINE | re.DOTALL)
EXPERIMENTS = numbers.ROOT / "src/feedalign/lab/experiments"
# Numbers of pages that are neither measured here nor set by code that the page shows, with where they come from.
ELSEWHERE = {
    "docs/about/index.md": ("a licence, and a version of this library", "2.0 1.0"),
    "docs/how-to/choose-a-rule.md": (
        "accuracies that others have published",
        "98.74 98.55 98.47 99.1 98.4 90.8 87.2 90.4 70.5 61.0 67.5 91.4 67.8 90.0 70.4 92.2 68.0 91.8 70.8 29.8 52.0",
    ),
    "docs/how-to/compatibility-models.md": ("the command that writes the whole page measured it", "9.5"),
    "docs/how-to/feedback.md": ("a version of this library", "0.1"),
    "docs/how-to/measure-alignment.md": ("defaults of alignment_times", "0.2 0.02"),
    "docs/how-to/training-loops.md": ("a version of torch", "2.12"),
    "docs/how-to/long-runs.md": ("the default interval of checkpoints, and a hundredth of it", "0.6"),
    "docs/how-to/will-it-align.md": (
        "thresholds of the diagnosis, and settings of tests/diagnosis",
        "0.1 0.3 0.5 0.03 1.1 1.9 0.38 0.56",
    ),
    "docs/index.md": ("a version of Python", "3.11"),
    "README.md": ("a version of Python, and one of BioTorch", "3.11 0.0.16"),
    "docs/results/convolution.md": ("the weight decay of learned feedback, in common/convnets.py", "0.01"),
    "docs/results/transformer.md": ("learning rates that were tried beside those of the experiment", "0.004 0.08"),
    "docs/understanding/deep-linear.md": ("computed by hand from numbers of the same page; a threshold", "0.008 1.2"),
    "docs/understanding/shallow.md": ("computed by hand on the page, and again in its code", "0.161"),
    "docs/results/gradient-perturbation.md": ("1/√(1 + ρ²), the update alignment of noise of length ρ", "0.12 0.45"),
}


def title(page: Path) -> str:
    return str(page.relative_to(numbers.ROOT))


def unsourced(text: str) -> str:
    """What is left of a text without numbers that have a source, goals, code, links and formulas."""
    for pattern in (CODE, numbers.SOURCED, GOAL, r"\]\([^)]*\)", r"\$\$[^$]*\$\$|\$[^$]*\$", r"arXiv:[\d.]+"):
        text = re.sub(pattern, "", text)
    return text


def set_by_code(page: Path, text: str) -> set[str]:
    """The numbers in the code that a page shows, and, on the page of an experiment, in the code of the experiment."""
    codes = [found[0] for found in CODE.finditer(text)]
    if page.parent.name == "results":
        codes += [path.read_text(encoding="utf-8") for path in EXPERIMENTS.glob(f"{page.stem.replace('-', '_')}*.py")]
    return {written.lstrip("-") for code in codes for written in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", code)}


def sources(page: Path, text: str) -> set[str]:
    """The result files a page is about: of its own experiment, of numbers it takes, of benchmarks it names."""
    found = {match["file"] for match in numbers.SOURCED.finditer(text)} - {numbers.ROBUSTNESS.stem}
    found = {file for file in found if not file.endswith(".nc")}
    found |= {name for name in re.findall(r"(\w+)\.py", text) if (numbers.FOLDERS[0] / f"{name}.json").exists()}
    if page.parent.name == "results":
        own = (page.stem, f"paper/{page.stem}")
        found |= {name for name in own if (numbers.FOLDERS[1] / f"{name}.json").exists()}
    return found


def measured(file: str) -> list[Decimal]:
    """All measured numbers of a result file."""
    chosen = {"threshold", "asked", "asked_of_that", "alpha", "beta", "rtol"}
    return [
        Decimal(str(value))
        for row in numbers.committed(file)
        for name, value in row.items()
        if isinstance(value, float) and name not in chosen
    ]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_number_with_a_source_is_that_of_the_source(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    stale = [
        f"{found[0]}: the source has {numbers.current(found)}"
        for found in numbers.SOURCED.finditer(text)
        if found["number"] != numbers.current(found)
    ]
    assert stale == [], f"a result has changed; run {TOOL}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_no_source_is_written_in_a_way_that_nothing_reads(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"<!--[^>]*\]\.", text)) == len(numbers.SOURCED.findall(text))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_in_a_table_of_results_every_measured_number_has_a_source(page: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        if numbers.SOURCED.search(table):
            assert DECIMAL.findall(unsourced(table)) == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_decimal_number_is_measured_with_a_source_or_set_by_code_or_named_here(page: Path) -> None:
    """So a number of a trial that nobody can repeat does not come into a page."""
    text = page.read_text(encoding="utf-8")
    known = {float(number) for number in set_by_code(page, text)}
    known |= {float(number) for number in ELSEWHERE.get(title(page), ("", ""))[1].split() if number.count(".") < 2}
    assert [number for number in DECIMAL.findall(unsourced(text)) if float(number) not in known] == []


def test_every_number_from_elsewhere_is_still_there() -> None:
    for page, (_, listed) in ELSEWHERE.items():
        text = (numbers.ROOT / page).read_text(encoding="utf-8")
        assert [number for number in listed.split() if number not in text] == [], page


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_no_number_is_typed_that_a_result_of_the_page_holds(page: Path) -> None:
    """A number of three digits or more; one of two digits is often a threshold."""
    text = page.read_text(encoding="utf-8")
    values = {file: measured(file) for file in sources(page, text)}
    typed = [
        f"{number} is in {file}.json"
        for number in DECIMAL.findall(unsourced(text))
        for file, held in values.items()
        if len(number.replace(".", "").lstrip("0")) > 2
        and any(numbers.written(value, number) == number for value in held)
    ]
    assert typed == [], "write the source behind the number; tools/docs/committed_numbers.py says how"


def test_the_site_shows_the_number_of_the_source_and_no_comment() -> None:
    text = "a 9.99<!-- step_time[width=2048].limit --> b 7 %<!-- checkpoints[784-2048-2048-10].share_of_run --> c"
    html = markdown(text, extensions=["tools.docs.committed_numbers"])
    assert html == "<p>a 0.69 b 0 % c</p>"
    assert numbers.update(text).startswith("a 0.69<!-- step_time[width=2048].limit --> b 0 %<!-- ")


@pytest.mark.parametrize(
    ("value", "like", "written"),
    [
        ("0.704", "0.7", "0.7"),
        ("1.135", "1.14", "1.14"),
        ("0.0075", "0.001", "0.008"),
        ("12.5", "1.00", "12.50"),
        ("142000", "1 000", "142 000"),
        ("1630", "9999", "1630"),
        ("3.7e-7", "4e-7", "4e-7"),
        ("0.00037", "4.0e-7", "3.7e-4"),
        ("-0.5", "0.6", "−0.5"),
        ("-0.5", "-0.6", "-0.5"),
        ("0.5", "−0.6", "0.5"),
    ],
)
def test_a_number_is_written_like_the_one_it_replaces(value: str, like: str, written: str) -> None:
    assert numbers.written(Decimal(value), like) == written


def test_rows_are_chosen_by_fields_and_words_of_experiments_and_of_the_table_of_seeds() -> None:
    assert numbers.sourced("layerwise", "mean epochs", "low") < numbers.sourced("layerwise", "mean epochs", "high")
    assert numbers.sourced("paper/layerwise", "layer 1 is the first", "runs") > 0
    assert numbers.sourced("seed_robustness", "experiment=two-phases; part=4", "seeds") == 20


@pytest.mark.parametrize(
    ("file", "row", "field", "message"),
    [
        ("stap_time", "width=100", "limit", r"stap_time\.json, which is neither in"),
        ("step_time", "width=7", "limit", r"step_time\[width=7\]\.limit: 0 of the 9 rows .* name exactly one"),
        ("step_time", "ensemble", "asked", "4 of the 9 rows"),
        ("step_time", "width=2048", "speed", "speed is None, no number; the row has width, depth, .*lowest"),
        ("step_time", "ensemble; threads=1; compiled=True", "what", "what is 'ensemble of .*, no number"),
    ],
)
def test_a_source_that_does_not_exist_is_an_error(file: str, row: str, field: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numbers.sourced(file, row, field)
