"""Python processes that cannot import certain packages, as if these packages were not installed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata

import pytest

Process = Callable[[str], "subprocess.CompletedProcess[str]"]

_HIDE = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden!r} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


def without(hidden: Iterable[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process in which the packages of these import names cannot be found."""
    code = _HIDE.format(hidden=sorted(hidden)) + code
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def installed_with(distributions: Iterable[str]) -> set[str]:
    """Return the names of these distributions and of all that they require in turn, without their extras."""
    found: set[str] = set()
    queue = [normal(name) for name in distributions]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        for requirement in metadata.requires(name) or ():
            needed = normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
            try:
                metadata.distribution(needed)
            except metadata.PackageNotFoundError:
                continue  # a requirement of another system or another Python
            if "extra ==" not in requirement:
                queue.append(needed)
    return found


@pytest.fixture(scope="session")
def library_alone() -> Process:
    """Run code where `pip install feedalign`, without extras, is all that was installed."""
    kept = installed_with(["torch", "numpy", "jaxtyping", "lazy-loader"]) | {"feedalign"}
    hidden = {
        package
        for package, owners in metadata.packages_distributions().items()
        if not kept & {normal(owner) for owner in owners}
    }
    return lambda code: without(hidden, code)
