"""The report: one page that needs nothing else, and says all there is to know of each claim."""

from __future__ import annotations

import base64
import csv
import html
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import xarray as xr
from tests.cases.experiments import Parabola

from feedalign.lab.experiments import Verdict, compute, holm
from feedalign.lab.report import Result, write_report
from feedalign.lab.report.links import documentation, relative
from feedalign.lab.runs import environment, run_once


def make(root: Path, **changes: Any) -> Result:
    experiment = Parabola()
    config = experiment.CONFIGS["quick"]
    run = run_once(experiment.NAME, config, lambda: compute(experiment, config), root)
    result = Result(experiment, replace(run, seconds=12.34), experiment.check(run.dataset), "feedalign reproduce 'a b'")
    return replace(result, **changes)


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return make(tmp_path / "runs")


def written(results: list[Result], path: Path) -> str:
    write_report(results, path)
    return path.read_text(encoding="utf-8")


def words(page: str) -> list[str]:
    """Each verdict below the contents in the order of the page, each experiment's own before those of its parts."""
    return re.findall(r'class="word (?:yes|no|open)">(?:[✓✗?] )?([a-z ]+)<', page.partition("</nav>")[2])


class Parsed(HTMLParser):
    """Reads a page as a browser would, and refuses what a browser would have to repair."""

    VOID = frozenset({"img", "link", "meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.contents: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        (self.links if tag == "a" else self.loaded).extend(
            values[name] for name in ("src", "href", "srcset", "data", "action") if name in values
        )
        if tag == "a" and "nav" in self.open and "part" in values.get("class", ""):
            self.contents.append((values["href"], values["aria-label"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_the_page_is_well_formed(result: Result, tmp_path: Path) -> None:
    parsed = Parsed(written([result], tmp_path / "page.html"))
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {"html", "head", "title", "body", "nav", "main", "section", "figure", "table"} <= set(parsed.tags)
    inside = [link.removeprefix("#") for link in parsed.links if link.startswith("#") and link != "#"]
    assert inside
    assert set(inside) <= set(parsed.ids)


def test_the_page_loads_nothing_from_elsewhere(result: Result, tmp_path: Path) -> None:
    page = written([result], tmp_path / "page.html")
    parsed = Parsed(page)
    assert len(parsed.loaded) == 2  # the figure, and an empty icon, which keeps the browser from asking for one
    assert all(link.startswith("data:") for link in parsed.loaded)
    assert not {"script", "iframe", "base", "object", "form"} & set(parsed.tags)
    assert not re.search(r"url\(|@import|https?://|href=\"//", page)


def test_the_contents_have_every_verdict_and_lead_to_it(result: Result, tmp_path: Path) -> None:
    parsed = Parsed(written([result], tmp_path / "page.html"))
    assert parsed.contents == [("#parabola-1", "part 1: supported"), ("#parabola-2", "part 2: supported")]
    assert {"parabola", "parabola-1", "parabola-2"} <= set(parsed.ids)


def renamed(result: Result, name: str, *verdicts: Verdict) -> Result:
    experiment = Parabola(NAME=name)
    return replace(result, experiment=experiment, verdicts=list(verdicts))


def test_what_failed_comes_first(result: Result, tmp_path: Path) -> None:
    """In the contents and below them; claims with the same verdict keep the order in which they were run."""
    good, other = result.verdicts
    bad, alone = replace(good, effect=2.9), replace(other, runs=1)
    results = [
        renamed(result, "fine", good, other),
        renamed(result, "alone", good, alone),
        renamed(result, "wrong", good, bad),
        renamed(result, "fine-too", good),
        renamed(result, "both", alone, bad),
    ]
    page = written(results, tmp_path / "page.html")
    expected = ["wrong", "both", "alone", "fine", "fine-too"]
    assert re.findall(r'<section id="([a-z-]+)"', page) == [*expected, "how-to-read"]
    contents = page.partition("</nav>")[0]
    assert re.findall(r'<li>\s*<a href="#([a-z-]+)"', contents) == expected
    assert [label for _, label in Parsed(page).contents] == [
        *["part 1: supported", "part 2: not supported"],
        *["part 1: cannot be judged", "part 2: not supported"],
        *["part 1: supported", "part 2: cannot be judged"],
        *["part 1: supported", "part 2: supported", "part 1: supported"],
    ]
    failed = [" ".join(item.split()) for item in re.findall(r"<li>(Part .*?)</li>", contents, re.DOTALL)]
    assert failed[0] == "Part 2 is not supported: it ends above 3. Effect 2.9 ± 0.12, threshold: above 3."
    assert [item.partition(":")[0] for item in failed] == [
        "Part 2 is not supported", "Part 1 cannot be judged", "Part 2 is not supported", "Part 2 cannot be judged",
    ]  # fmt: skip


def test_links_lead_to_the_files_of_the_run(result: Result, tmp_path: Path) -> None:
    page = tmp_path / "out" / "page.html"
    links = Parsed(written([result], page)).links
    for name in ("result.nc", "config.json", "figure.svg"):
        (link,) = (link for link in links if link.endswith(name))
        assert link.startswith("../runs/parabola/")
        assert (page.parent / unquote(link)).resolve() == (result.run.folder / name).resolve()
        assert (page.parent / unquote(link)).is_file()


def test_odd_names_of_folders_make_addresses(tmp_path: Path) -> None:
    assert relative(tmp_path / "a b#?%" / "é.nc", tmp_path / "page.html") == "a%20b%23%3F%25/%C3%A9.nc"
    assert relative(tmp_path / os.fsdecode(b"\xff"), tmp_path / "page.html") == "%FF"
    assert relative(Path("runs/x.nc"), Path("page.html")) == "runs/x.nc"


def test_the_built_documentation_is_preferred_to_its_text(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert documentation("parabola", page, tmp_path) is None
    for place in ("docs/results/parabola.md", "site/results/parabola/index.html"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
        assert documentation("parabola", page, tmp_path) == place


def test_the_numbers_can_be_downloaded_in_full(result: Result, tmp_path: Path) -> None:
    second = renamed(result, "second", result.verdicts[0])
    links = [
        link for link in Parsed(written([result, second], tmp_path / "page.html")).links if link.startswith("data:")
    ]
    tables = []
    for link in links:
        head, _, content = link.partition(",")
        assert head == "data:text/csv;charset=utf-8;base64"
        tables.append(list(csv.DictReader(io.StringIO(base64.b64decode(content).decode(), newline=""))))
    everything, first, last = tables
    assert everything == first + last
    assert [(row["experiment"], row["part"]) for row in everything] == [
        ("parabola", "1"), ("parabola", "2"), ("second", "1"),
    ]  # fmt: skip
    corrected = holm([*result.verdicts, *second.verdicts])
    assert [float(row["p_value_holm"]) for row in everything] == corrected
    for row, verdict in zip(first, result.verdicts, strict=True):
        assert float(row["effect"]) == verdict.effect
        assert float(row["p_value"]) == verdict.p_value
        assert (float(row["interval_low"]), float(row["interval_high"])) == verdict.interval
        assert row["claim"] == verdict.claim
        assert row["command"] == result.command


def test_the_figure_is_embedded_and_lies_beside_the_run(result: Result, tmp_path: Path) -> None:
    page = written([result], tmp_path / "page.html")
    match = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert match is not None
    svg = base64.b64decode(match[1])
    assert svg == (result.run.folder / "figure.svg").read_bytes()
    assert b"</svg>" in svg


def test_the_page_says_all_there_is_to_know(result: Result, tmp_path: Path) -> None:
    page = " ".join(html.unescape(written([result], tmp_path / "page.html")).split())
    for text in (
        result.experiment.NAME,
        result.experiment.CLAIM,
        "Over 3 points.",
        result.command,
        result.run.config_hash,
        str(result.run.folder),
        "computed in 12.3 s",
        environment()["python"],
        f"torch {environment()['packages']['torch']}",
        f"feedalign {environment()['packages']['feedalign']}",
    ):
        assert text in page
    for verdict in result.verdicts:
        for text in (
            verdict.claim,
            verdict.sample,
            f"{verdict.effect:.3g}",
            f"± {verdict.standard_error:.2g}",
            f"{verdict.interval[0]:.3g} to {verdict.interval[1]:.3g}",
            f"{verdict.runs} independent runs",
            f"{verdict.side} {verdict.threshold:.3g}",
        ):
            assert text in page
    assert "remain supported after Holm's correction" in page


def test_text_is_escaped(result: Result, tmp_path: Path) -> None:
    page = written([replace(result, command="feedalign <b>&'")], tmp_path / "page.html")
    assert "rises &lt;fast&gt; &amp; for ever" in page
    assert "<fast>" not in page
    assert "<b>" not in page


def test_what_is_supported_is_called_so(result: Result, tmp_path: Path) -> None:
    page = written([result], tmp_path / "page.html")
    assert words(page) == ["supported"] * 3
    assert "1 of 1 claim supported by the data" in page


@pytest.mark.parametrize("effect", [0.0, float("nan")])
def test_one_failed_part_fails_the_claim(result: Result, tmp_path: Path, effect: float) -> None:
    first, second = result.verdicts
    spoilt = replace(result, verdicts=[first, replace(second, effect=effect, side="above")])
    page = written([spoilt, result], tmp_path / "page.html")
    assert words(page) == ["not supported", "supported", "not supported", *["supported"] * 3]
    assert "1 of 2 claims supported by the data" in page


def test_a_claim_of_one_run_cannot_be_judged(result: Result, tmp_path: Path) -> None:
    page = written([replace(result, verdicts=[replace(result.verdicts[0], runs=1)])], tmp_path / "page.html")
    assert words(page) == ["cannot be judged"] * 2
    assert "0 of 1 claim supported by the data" in page


def test_the_page_appears_whole_or_not_at_all(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out" / "page.html"
    old = written([result], path)

    def broken(dataset: xr.Dataset) -> str:
        raise KeyboardInterrupt("stop")

    monkeypatch.setattr(result.experiment, "caption", broken)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        write_report([result], path)
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    assert path.read_text(encoding="utf-8") == old
    names = sorted(file.name for file in result.run.folder.iterdir())
    assert names == ["config.json", "environment.json", "figure.svg", "result.nc"]


def test_a_page_that_cannot_be_written_is_an_error(result: Result, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        write_report([result], tmp_path / "folder")


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    figures = []
    for root in (tmp_path / "a", tmp_path / "b"):
        result = make(root)
        write_report([result], root / "page.html")
        figures.append((result.run.folder / "figure.svg").read_bytes())
    assert figures[0] == figures[1]


def test_the_figure_belongs_to_no_run_that_is_read_again(result: Result, tmp_path: Path) -> None:
    """A run stays a finished run with the figure beside it."""
    write_report([result], tmp_path / "page.html")
    again = make(tmp_path / "runs")
    xr.testing.assert_identical(again.run.dataset, result.run.dataset)
