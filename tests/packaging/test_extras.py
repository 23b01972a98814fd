"""A missing package is named with the command that installs it, in Python and on the command line."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from feedalign.errors import FeedalignError, MissingExtraError
from feedalign.extras import PACKAGES, needs

Process = Callable[[str], "subprocess.CompletedProcess[str]"]
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def listed(extra: str) -> set[str]:
    """Names of the distributions of an extra, those of the extras it contains included."""
    names: set[str] = set()
    for requirement in EXTRAS[extra]:
        inner = re.fullmatch(r"feedalign\[(\w+)\]", requirement)
        names |= listed(inner[1]) if inner else {re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower()}
    return names


@pytest.mark.parametrize("extra", PACKAGES)
def test_the_packages_of_an_extra_are_those_pyproject_lists(extra: str) -> None:
    installed = metadata.packages_distributions()
    names = {installed[package][0].lower().replace("_", "-") for package in PACKAGES[extra]}
    assert names == listed(extra)


def test_each_extra_contains_the_smaller_one() -> None:
    assert PACKAGES["theory"] < PACKAGES["lab"] < PACKAGES["cluster"]
    assert PACKAGES["lab"] < PACKAGES["explore"]
    assert {"feedalign[cluster]", "feedalign[explore]"} <= set(EXTRAS["dev"])


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    expected = r"^feedalign\.theory needs the package scipy, .*: pip install 'feedalign\[theory\]'$"
    with pytest.raises(MissingExtraError, match=expected) as caught, needs("theory", "feedalign.theory"):
        raise missing("scipy.linalg")
    assert caught.value.name == "scipy"
    assert isinstance(caught.value, FeedalignError)
    assert isinstance(caught.value, ImportError)


def test_the_outermost_block_names_its_extra() -> None:
    expected = r"^the report needs .*pip install 'feedalign\[lab\]'$"
    with pytest.raises(MissingExtraError, match=expected), needs("lab", "the report"), needs("theory", "a curve"):
        raise missing("numba")


def test_a_package_of_no_extra_and_a_broken_package_pass_unchanged() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'mine'$"), needs("lab", "x"):
        raise missing("mine")
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'tyro'$"), needs("theory", "x"):
        raise missing("tyro")
    with pytest.raises(ImportError, match=r"^cannot import name 'eigh'$"), needs("theory", "x"):
        raise ImportError("cannot import name 'eigh'", name="scipy.linalg")


@pytest.mark.parametrize(
    ("code", "wanted", "extra"),
    [
        ("from feedalign.theory import shallow", "feedalign.theory.shallow", "theory"),
        ("import feedalign; feedalign.theory.linear", "feedalign.theory.linear", "theory"),
        ("from feedalign.theory.convolution import alignability", "feedalign.theory.convolution", "theory"),
        ("from feedalign.lab import data", "feedalign.lab.data", "lab"),
        ("from feedalign.lab import runs", "feedalign.lab.runs", "lab"),
        ("from feedalign.lab import report", "feedalign.lab.report", "lab"),
        ("from feedalign.lab import explore; explore.serve()", "feedalign explore", "explore"),
    ],
)
def test_front_doors_name_the_extra(library_alone: Process, code: str, wanted: str, extra: str) -> None:
    done = library_alone(code)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"feedalign.errors.MissingExtraError: {wanted} needs the package ")
    assert last.endswith(f"pip install 'feedalign[{extra}]'")


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["reproduce"], ["explode"]])
def test_the_command_without_the_laboratory_says_so_in_one_line(library_alone: Process, arguments: list[str]) -> None:
    done = library_alone(
        f"sys.argv = ['feedalign', *{arguments!r}]\nfrom feedalign.__main__ import main\nsys.exit(main())"
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert re.fullmatch(
        r"feedalign: the command feedalign needs the package \w+, which is not installed\. .*"
        r"pip install 'feedalign\[lab\]'\n",
        done.stderr,
    )
