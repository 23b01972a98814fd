"""A real browser without a window. Tests that need one are skipped, with the reason, where none is found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page

# Set to the program of a browser that is not on the path.
VARIABLE = "FEEDALIGN_CHROMIUM"
# In seconds. Only ends a test that would wait for ever: how long a page takes depends on what else the machine does.
PATIENCE = 900
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str:
    """The program of Chromium; the test is skipped if there is none."""
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium is installed; install one, or set {VARIABLE} to its program")
    return found


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """A running Chromium with one reader, who keeps what the first page has loaded for the pages after it."""
    found = program()
    api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        try:
            yield browser.new_context()
        finally:
            browser.close()


@contextmanager
def opened(
    reader: BrowserContext, address: str, width: int, scheme: Literal["light", "dark"] = "light", height: int = 900
) -> Iterator[Page]:
    """A page in a window of this width. Fails if the page logs an error, throws one, or asks another host."""
    page = reader.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    page.set_default_timeout(1000 * PATIENCE)
    wrong: list[str] = []

    def log(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(f"{page.url} logged {message.text}")

    page.on("console", log)
    page.on("pageerror", lambda error: wrong.append(f"{page.url} threw {error}"))
    page.on("requestfailed", lambda request: None if _left(request.failure) else wrong.append(f"{request.url} failed"))
    page.on("request", lambda request: None if _here(request.url) else wrong.append(f"{request.url} was asked for"))
    try:
        page.goto(address)
        yield page
        assert wrong == []
    finally:
        page.close()


def _here(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:"))


def _left(failure: str | None) -> bool:
    """Whether a request was given up since a click has led to another page: no failure of the page."""
    return failure == "net::ERR_ABORTED"
