"""The files around the code agree with one another: versions, floors, hooks, workflows, citation, commands."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import feedalign

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_citation_names_software_and_paper() -> None:
    """The keys that the Citation File Format 1.2.0 requires, of the software and of a reference."""
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    assert citation["title"].startswith("feedalign")
    assert citation["authors"] == [{"name": author["name"]} for author in PYPROJECT["project"]["authors"]]
    assert citation["version"] == feedalign.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    (paper,) = citation["references"]
    assert paper["type"] == "conference-paper"
    assert paper["title"].startswith("Align, then memorise")
    assert [author["family-names"] for author in paper["authors"]] == ["Refinetti", "d'Ascoli", "Ohana", "Goldt"]
    assert (paper["year"], paper["volume"]) == (2021, 139)
    assert paper["identifiers"][0]["value"] == "arXiv:2011.12428"


def test_the_version_stands_in_the_package_alone() -> None:
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert "version" not in PYPROJECT["project"]
    source = ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{feedalign.__version__}"' in source.read_text()


def test_ci_runs_the_whole_check_on_every_python_that_is_promised() -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    job = jobs["check"]
    assert {"run": ".ci/run"} in job["steps"]
    assert {"run": "make claims"} in jobs["claims"]["steps"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PYPROJECT["project"]["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == promised
    assert PYPROJECT["project"]["requires-python"] == f">={promised[0]}"


def test_pre_commit_runs_ruff_and_mypy_as_make_does() -> None:
    """So their versions stand in constraints.txt alone."""
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint", "make types"]
    assert {"lint", "types"} <= TARGETS
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^ruff==", pinned, re.MULTILINE)
    assert re.search(r"^mypy==", pinned, re.MULTILINE)


def test_the_pins_are_no_lower_than_the_floors() -> None:
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    floors = dict(line.split("==") for line in tool("floors").floors((ROOT / "pyproject.toml").read_text()))
    assert floors

    def number(version: str) -> list[int]:
        return [int(part) for part in version.split(".")]

    for name, floor in floors.items():
        assert number(pins[name]) >= number(floor), name


def test_floors_are_read_from_the_library_and_what_users_install() -> None:
    text = """
        [project]
        dependencies = ["torch>=2.7"]
        [project.optional-dependencies]
        theory = ["scipy>=1.13"]
        lab = ["feedalign[theory]", "rich>=13"]
        cluster = ["feedalign[lab]", "ray>=2.40"]
        explore = ["feedalign[lab]", "dash>=4.4"]
        dev = ["pytest>=8"]
    """
    assert tool("floors").floors(text) == ["torch==2.7", "scipy==1.13", "rich==13", "ray==2.40", "dash==4.4"]
    with pytest.raises(ValueError, match=r"'rich<15' in pyproject.toml names no lowest version"):
        tool("floors").floors(text.replace("rich>=13", "rich<15"))


def test_the_contribution_guide_names_the_targets_there_are() -> None:
    named = set(re.findall(r"`make ([a-z]+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert named == TARGETS - {"help"}
