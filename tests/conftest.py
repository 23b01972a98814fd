"""What every test shares."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Two test workers share two cores. More threads for each worker would only get in one another's way. Set before torch
# loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# So that every test finds `tests.cases`, from whatever folder pytest is started.
sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from tests.cases.browser import chromium

from feedalign.errors import DataError
from feedalign.lab.data import ImageData, fetch, load
from feedalign.rules.signature import COMPILES

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext


def _fetched(name: str) -> ImageData:
    """Fetch into the usual folder, so one download serves every session; skip where no source can be reached."""
    try:
        fetch(name)
    except DataError as error:
        # A wrong digest or a full disk is a failure, not a reason to skip.
        if "no source of" in str(error) and "truncated or altered" not in str(error):
            pytest.skip(str(error))
        raise
    return load(name)


@pytest.fixture(scope="session")
def mnist() -> ImageData:
    return _fetched("mnist")


@pytest.fixture(scope="session")
def fashion_mnist() -> ImageData:
    return _fetched("fashion-mnist")


@pytest.fixture(scope="session")
def cifar100() -> ImageData:
    return _fetched("cifar100")


@pytest.fixture(scope="session")
def cifar10() -> ImageData:
    return _fetched("cifar10")


@pytest.fixture(scope="module")
def reader() -> Iterator[BrowserContext]:
    """Who looks at pages in a real browser, one page after another."""
    with chromium() as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no worker is left alone with one at the end; all others keep their order.

    Where torch is so old that a net in a rule runs uncompiled, there is nothing to compile.
    """
    for item in items:
        if not COMPILES and ("compil" in item.name or "export" in item.name):
            item.add_marker(pytest.mark.skip(reason="this version of torch leaves a net in a rule uncompiled"))
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("slow", "fault"))))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what the fault tests counted: how often something was killed, and how many results were lost."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    counted = [pair for report in reports if report.when == "call" for pair in report.user_properties]
    kills, lost = (sum(value for name, value in counted if name == wanted) for wanted in ("kills", "lost"))
    if kills:
        terminalreporter.write_line(f"faults: {kills} kills, {lost} results lost")
