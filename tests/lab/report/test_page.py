"""The report: one page that needs nothing else, and says all there is to know of each claim."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from tests.cases.experiments import Parabola

from feedalign.lab.experiments import compute
from feedalign.lab.report import Result, write_report
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
    """Each verdict of the page, the experiment's own first."""
    return re.findall(r'class="word (?:yes|no)">([a-z ]+)<', page)


class Links(HTMLParser):
    """Collects whatever a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_loads_nothing_from_elsewhere(result: Result, tmp_path: Path) -> None:
    links = Links()
    page = written([result], tmp_path / "page.html")
    links.feed(page)
    assert len(links.found) == 1
    assert all(link.startswith("data:") for link in links.found)
    assert not {"script", "link", "iframe", "base"} & set(links.tags)
    assert not re.search(r"url\(|@import|https?://", page)


def test_the_figure_is_embedded_and_lies_beside_the_run(result: Result, tmp_path: Path) -> None:
    page = written([result], tmp_path / "page.html")
    match = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert match is not None
    svg = base64.b64decode(match[1])
    assert svg == (result.run.folder / "figure.svg").read_bytes()
    assert b"</svg>" in svg


def test_the_page_says_all_there_is_to_know(result: Result, tmp_path: Path) -> None:
    page = html.unescape(written([result], tmp_path / "page.html"))
    for text in (
        result.experiment.NAME,
        result.experiment.CLAIM,
        "Over 3 points.",
        result.command,
        result.run.config_hash,
        f"{result.run.folder}/result.nc",
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
