"""The site, built once for all tests of the documentation, with tutorials that were not run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jupytext
import pytest
from tests.cases.browser import PATIENCE
from tools.docs import prepare, tutorials

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the site is built from."""
    folder = tmp_path_factory.mktemp("site-source")
    for name in ("docs", "results", "benchmarks/results", "tools"):
        made = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=made)
    for name in ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "src").symlink_to(ROOT / "src")
    prepare.copy_figures(target=folder / "docs/figures/results")
    for script in tutorials.tutorials():
        tutorials.write_page(script, jupytext.read(script), folder / "docs/tutorials")
    return folder


def built(source: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make docs` does."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "NO_COLOR": "1"}
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="session")
def site(source: Path) -> Path:
    """The finished site."""
    done = built(source)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "site"


@pytest.fixture
def build() -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Builds the site in a folder, and tells how that ended."""
    return built
