"""The site as a reader sees it, in a real browser: light and dark, on a laptop and on a telephone."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.cases.browser import chromium, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

# Pages with pictures, wide tables, formulas, code and figures of results.
PAGES = (
    "", "tutorials/", "tutorials/first-network/", "how-to/choose-a-rule/", "how-to/will-it-align/", "understanding/",
    "understanding/deep-linear/", "results/", "results/speed/", "understanding/shallow/",
    "results/two-phases/", "reference/rules/", "about/changelog/",
)  # fmt: skip
BROKEN = "[...document.images].filter(image => image.complete && !image.naturalWidth)"
WIDE = "[...document.querySelectorAll('pre code')].filter(code => code.scrollWidth > code.clientWidth + 1)"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of a request."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_pages_fit_their_window_and_show_every_figure(
    width: int, scheme: Literal["light", "dark"], address: str, browser: Browser
) -> None:
    for page in PAGES:
        with opened(browser, address + page, width, scheme) as shown:
            assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), page
            images = (
                "[...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
            )
            assert shown.evaluate(images) == [], page
            if width == 1400:
                wide = (
                    "[...document.querySelectorAll('pre code')].filter(code => code.scrollWidth > code.clientWidth + 1)"
                )
                assert shown.evaluate(f"{wide}.map(code => code.innerText)") == [], page


def test_no_code_on_any_page_scrolls_sideways_on_a_laptop(site: Path, address: str, browser: Browser) -> None:
    files = [
        path for path in site.rglob("index.html") if 'http-equiv="refresh"' not in path.read_text(encoding="utf-8")
    ]
    scrolling = {}
    for page in (path.parent.relative_to(site).as_posix() for path in files):
        with opened(browser, f"{address}{page}/", 1400) as shown:
            scrolling[page] = shown.evaluate(f"{WIDE}.map(code => code.innerText)")
    assert {page: blocks for page, blocks in scrolling.items() if blocks} == {}


def test_formulas_are_drawn(address: str, browser: Browser) -> None:
    with opened(browser, address + "understanding/deep-linear/", 1400) as shown:
        heights = shown.evaluate(
            "[...document.querySelectorAll('math')].map(math => math.getBoundingClientRect().height)"
        )
        assert len(heights) > 50
        assert min(heights) > 5


def test_three_clicks_lead_from_the_front_page_to_the_rule_for_a_transformer(address: str, browser: Browser) -> None:
    with opened(browser, address, 1400) as shown:
        shown.click("text=Which rule should I take?")
        shown.click("a:visible:has-text('What do Transformers need?')")
        assert shown.url.endswith("how-to/choose-a-rule/#what-do-transformers-need")


def test_search_finds_a_page(address: str, browser: Browser) -> None:
    with opened(browser, address, 1400) as shown:
        shown.click("button:has-text('Search'):visible")
        shown.keyboard.type("Kolen", delay=20)
        shown.wait_for_selector("text=DirectKolenPollack")


def test_the_button_for_dark_colours_changes_page_and_pictures(address: str, browser: Browser) -> None:
    with opened(browser, address, 1400) as shown:
        ink = "getComputedStyle(document.querySelector('.fa-picture')).getPropertyValue('--ink')"
        light = shown.evaluate(ink)
        shown.locator("label[for^=__palette]:visible").first.click()
        shown.wait_for_selector("[data-md-color-scheme=slate]")
        assert re.fullmatch(r"#\w{6}", light)
        assert shown.evaluate(ink) != light
