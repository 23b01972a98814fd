"""The site as a reader sees it, in a real browser: light and dark, on a laptop and on a telephone."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cases.browser import opened

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.slow

LAPTOP, TELEPHONE = 1400, 400
# What is wrong with a page in each scheme of colours, in words. The scheme changes at once, before anything is painted.
FAULTS = """() => ['default', 'slate'].flatMap(scheme => {
  document.body.setAttribute('data-md-color-scheme', scheme)
  const all = names => [...document.querySelectorAll(names)]
  const wide = all('pre code').filter(code => code.scrollWidth > code.clientWidth + 1)
  const flat = all('math').filter(math => math.getBoundingClientRect().height <= 5)
  // The letters of a figure of results can be read from 600 pixels on.
  const needs = figure => figure.src?.includes('figures/results/') ? 600 : 20
  const unseen = all('article img, .fa-picture').filter(each => each.getBoundingClientRect().width < needs(each))
  return [
    ...(document.documentElement.scrollWidth > innerWidth ? ['the page scrolls sideways'] : []),
    ...(innerWidth === LAPTOP ? wide : []).map(code => `this code scrolls sideways: ${code.innerText}`),
    ...flat.map(math => `this formula is not drawn: ${math.textContent}`),
    ...unseen.map(figure => `this figure is not seen: ${figure.outerHTML.slice(0, 200)}`),
  ].map(fault => `${innerWidth} pixels, ${scheme}: ${fault}`)
})""".replace("LAPTOP", str(LAPTOP))
# Waits for each image, those too that load only when a reader comes near.
BROKEN = """() => Promise.all([...document.images].map(image => {
  image.loading = 'eager'
  return image.decode().then(() => [], () => [`this image is broken: ${image.src}`])
})).then(found => found.flat())"""
# What a reader looks for, and the pages of which one must be found first.
SEARCHES = {
    "transformer": ("understanding/transformers/", "tutorials/transformer/"),
    "alignment": ("how-to/measure-alignment/", "reference/alignment/"),
    "hugging face": ("how-to/hugging-face/",),
    "convolution": ("understanding/convolutions/", "reference/convolution/"),
    "padding": ("how-to/hugging-face/",),
    "fsdp": ("how-to/training-loops/", "how-to/compatibility/"),
    "mixed precision": ("how-to/training-loops/",),
    "recurrent": ("how-to/recurrent/",),
}


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


def pages(site: Path) -> list[str]:
    """The addresses of all pages, without those that only lead to another page."""
    files = sorted(site.rglob("index.html"))
    return [
        f"{path.parent.relative_to(site).as_posix()}/".removeprefix("./")
        for path in files
        if 'http-equiv="refresh"' not in path.read_text(encoding="utf-8")
    ]


def faults(shown: Page) -> list[str]:
    """What is wrong with the page that is shown, at any width and in any colours."""
    found: list[str] = shown.evaluate(BROKEN)
    for width in (LAPTOP, TELEPHONE):
        shown.set_viewport_size({"width": width, "height": 900})
        found += shown.evaluate(FAULTS)
    return found


def test_every_page_fits_its_window_and_shows_figures_formulas_and_code(
    site: Path, address: str, reader: BrowserContext
) -> None:
    """Every page is loaded once. Then its window and its colours change."""
    found = {}
    with opened(reader, address, LAPTOP) as shown:
        for page in pages(site):
            shown.goto(address + page)
            found[page] = faults(shown)
    assert len(found) > 60
    assert {page: wrong for page, wrong in found.items() if wrong} == {}


def test_formulas_are_drawn(address: str, reader: BrowserContext) -> None:
    with opened(reader, address + "understanding/deep-linear/", LAPTOP) as shown:
        assert shown.locator("math").count() > 50


def test_three_clicks_lead_from_the_front_page_to_the_rule_for_a_transformer(
    address: str, reader: BrowserContext
) -> None:
    with opened(reader, address, LAPTOP) as shown:
        shown.click("text=Which rule should I take?")
        shown.click("a:visible:has-text('What do Transformers need?')")
        assert shown.url.endswith("how-to/choose-a-rule/#what-do-transformers-need")


def test_the_search_finds_the_right_page_first(address: str, reader: BrowserContext) -> None:
    found = {}
    with opened(reader, address, LAPTOP) as shown:
        shown.click("button:has-text('Search'):visible")
        for words in SEARCHES:
            shown.get_by_role("combobox", name="Search").fill(words)
            first = shown.locator(f"dialog li a[href*='?h={words.replace(' ', '+')}']").first
            first.wait_for()
            found[words] = (first.get_attribute("href") or "").removeprefix(address).split("?")[0]
    assert {words: page for words, page in found.items() if page not in SEARCHES[words]} == {}


def test_the_colours_follow_the_system(address: str, reader: BrowserContext) -> None:
    """While the page is open, and when the reader comes back another day."""
    with opened(reader, address, LAPTOP, "dark") as shown:
        shown.wait_for_selector("[data-md-color-scheme=slate]")
        shown.emulate_media(color_scheme="light")
        shown.wait_for_selector("[data-md-color-scheme=default]")
        shown.emulate_media(color_scheme="dark")
        shown.reload()
        shown.wait_for_selector("[data-md-color-scheme=slate]")


def test_the_button_for_colours_changes_page_and_pictures(address: str, reader: BrowserContext) -> None:
    """From the colours of the system to light, from light to dark, and back to the system's."""
    drawn = {}
    with opened(reader, address, LAPTOP) as shown:
        for name, scheme in (
            ("Light colours", "default"),
            ("Dark colours", "slate"),
            ("Colours of the system", "default"),
        ):
            shown.locator(f"label[title='{name}']:visible").click()
            shown.wait_for_selector(f"[data-md-color-scheme={scheme}]")
            drawn[name] = shown.evaluate(
                "getComputedStyle(document.querySelector('.fa-picture')).getPropertyValue('--ink')"
            )
    light, dark, system = drawn.values()
    assert re.fullmatch(r"#\w{6}", light)
    assert light == system != dark
