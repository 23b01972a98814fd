"""The report as a reader sees it, in a real browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytest
import xarray as xr
from matplotlib.figure import Figure
from tests.cases.browser import opened

from feedalign.lab.experiments import NAMES, Verdict
from feedalign.lab.report import Result, write_report
from feedalign.lab.runs import Job, run_once
from feedalign.style import figure_style

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.slow

# As many parts as the largest experiment has.
PARTS = 8
WRONG = (NAMES[3], NAMES[7])


@dataclass(frozen=True)
class Config:
    name: str


@dataclass
class Drawn:
    """An experiment with a figure as wide as the real ones."""

    NAME: str
    CLAIM: str = "A claim that takes a sentence or two to say, and is not true everywhere. " * 3
    CONFIGS: dict[str, Any] = field(default_factory=dict)
    ON_DATASET: dict[str, dict[str, Any]] = field(default_factory=dict)

    def jobs(self, config: Config) -> list[Job]:
        return []

    def gather(self, config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
        return xr.Dataset({"y": ("x", [0.0, 1.0, 4.0])})

    def check(self, dataset: xr.Dataset) -> list[Verdict]:
        claim = "part of the claim, in about as many words as a part of a claim usually has"
        good = Verdict(claim, 1.0, 0.1, 0.5, "above", "a draw of everything", runs=5)
        bad = replace(good, claim="what is not true", effect=0.2)
        return [good, bad if self.NAME in WRONG else good, *[good] * (PARTS - 2)]

    def plot(self, dataset: xr.Dataset) -> Figure:
        with figure_style():
            figure = Figure(figsize=(8.6, 2.8))
            for axes in figure.subplots(1, 3):
                axes.plot(dataset.y)
        return figure

    def caption(self, dataset: xr.Dataset) -> str:
        return "What the figure shows. " * 10


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a report with as many experiments as there are, two of which failed."""
    root = tmp_path_factory.mktemp("report")
    results = []
    for experiment in map(Drawn, NAMES):
        run = run_once(
            experiment.NAME, Config(experiment.NAME), partial(experiment.gather, Config(""), []), root / "runs"
        )
        command = f"feedalign reproduce {experiment.NAME} --preset quick"
        results.append(Result(experiment, run, experiment.check(run.dataset), command))
    write_report(results, root / "report.html")
    return (root / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_every_figure_is_seen(
    reader: BrowserContext, address: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Without an error in the console, and without scrolling the page sideways."""
    with opened(reader, address, width, scheme) as page:
        figures = page.locator("figure img")
        assert figures.count() == len(NAMES)
        for figure in figures.all():
            figure.scroll_into_view_if_needed()
            box = figure.bounding_box()
            assert box is not None
            assert box["width"] >= 600  # its letters can be read; on a narrow screen it scrolls inside its frame
            assert figure.evaluate("image => image.complete && image.naturalWidth > 0")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_screen_has_every_verdict(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400) as page:
        verdicts = page.locator("nav a.part")
        assert verdicts.count() == PARTS * len(NAMES)
        assert all(box and box["y"] + box["height"] <= 900 for box in (each.bounding_box() for each in verdicts.all()))
        assert page.locator("nav ol > li").first.inner_text().startswith(WRONG[0])


def test_a_verdict_of_the_contents_leads_to_its_row(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400) as page:
        page.get_by_label("part 2: not supported").last.click()
        row = page.locator(f"[id='{WRONG[1]}-2']")
        box = row.bounding_box()
        assert box is not None
        assert -1 < box["y"] < 900  # to a fraction of a pixel
        assert "what is not true" in row.inner_text()


def brightness(colour: str) -> float:
    """From 0 to 255, of a colour as a browser writes it, rgb(r, g, b)."""
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_is_as_dark_as_its_reader_wants(
    reader: BrowserContext, address: str, scheme: Literal["light", "dark"], dark: bool
) -> None:
    """Text stands out from the page, and figures are turned dark with the page."""
    style = "(name) => getComputedStyle(document.querySelector(name))"
    with opened(reader, address, 1400, scheme) as page:
        paper, ink = (brightness(page.evaluate(f"({style})('body').{name}")) for name in ("backgroundColor", "color"))
        assert (paper < 50) is dark
        assert abs(paper - ink) > 150
        assert (page.evaluate(f"({style})('figure img').filter") != "none") is dark


def test_on_paper_the_page_is_light(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400, "dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.querySelector('figure img')).filter") == "none"
        assert brightness(page.evaluate("getComputedStyle(document.body).color")) < 50
        assert page.locator("section .screen").first.is_hidden()
        assert page.pdf().startswith(b"%PDF")
