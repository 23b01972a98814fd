"""The house: which room may import which, and that every room has a front door."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import feedalign

SOURCE = Path(feedalign.__file__).parent

# From the ground up: a room imports from the lines above its own only. `feedalign` itself, the lazy package, and cli
# come last: nothing imports them.
ARROW = (
    ("errors",),
    ("checks", "extras", "memory", "streams", "torch_private"),
    ("geometry", "style"),
    ("networks",),
    ("theory",),
    ("feedback",),
    ("anatomy",),
    ("rules",),
    ("verify",),
    ("alignment",),
    ("diagnosis",),
    ("lab.changes", "lab.files", "lab.options", "lab.panels", "lab.progress", "lab.recipes", "lab.shallow_rule"),
    ("lab.data",),
    ("lab.runs",),
    ("lab.training",),
    ("lab.experiments",),
    ("lab.robustness",),
    ("lab.own_code",),
    ("lab.diagnose_command", "lab.explore", "lab.own_setting", "lab.own_training", "lab.report"),
    ("lab.sweep",),
    ("lab.reproduction",),
    ("lab",),
    ("terminal",),
    ("cli",),
    ("__main__",),
    ("feedalign",),
)
LEVEL = {room: level for level, rooms in enumerate(ARROW) for room in rooms}
# Networks are plain modules and know of no rule; this holds also if the arrow should change.
APART = {("networks", "rules"), ("networks", "alignment")}
WITHOUT_TORCH = {
    "errors",
    "checks",
    "extras",
    "memory",
    "geometry",
    "style",
    "theory",
    "lab.changes",
    "lab.files",
    "lab.options",
    "lab.panels",
    "lab.progress",
    "lab.shallow_rule",
    "terminal",
}


def room_of(file: Path, source: Path) -> str:
    return room_at([part.removesuffix(".py") for part in file.relative_to(source).parts]) or "feedalign"


def room_at(path: Sequence[str]) -> str:
    """The room of a dotted path below the package; the laboratory is a house of rooms of its own."""
    inside = [part for part in path if part != "__init__"]
    return ".".join(inside[: 2 if inside[:1] == ["lab"] else 1])


def imported(file: Path, source: Path) -> Iterator[tuple[int, str, str]]:
    """Every import anywhere in a file as (line, absolute module, imported name or "")."""
    parts = ("feedalign", *file.relative_to(source).with_suffix("").parts)
    package = parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:  # of an f-string, the part before the first brace
                text = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
                if isinstance(text, ast.Constant):
                    yield node.lineno, str(text.value).rstrip("."), ""


def public_names(room: str, source: Path) -> set[str]:
    """The literal `__all__` of a room's front door; None of it is imported for that."""
    for statement in ast.parse(source.joinpath(*room.split("."), "__init__.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return set(ast.literal_eval(statement.value))
    return set()


def fault(room: str, module: str, name: str, source: Path) -> str | None:
    """What is wrong with a file of `room` importing `name` from `module`, if anything."""
    if room in WITHOUT_TORCH and module.split(".")[0] == "torch":
        return f"{room} imports torch"
    if module.split(".")[0] != "feedalign":
        return None
    path = [*module.split(".")[1:], *([name] if name else [])]
    other = room_at(path)
    if other not in LEVEL:
        return f"{room} imports {name or 'all'} of the package itself"
    inside = path[other.count(".") + 1 :]
    if other == room:
        return None
    if LEVEL[other] >= LEVEL[room] or (room, other) in APART:
        return f"{room} imports {other}"
    is_room = source.joinpath(*other.split(".")).is_dir()
    if len(inside) > 1 or (inside and is_room and (inside[0] not in public_names(other, source) or not name)):
        return f"{room} reaches into {other}: {'.'.join(inside)}"
    if inside and inside[0].startswith("_"):
        return f"{room} uses the private {other}.{inside[0]}"
    return None


def violations(source: Path) -> list[str]:
    """Every import that breaks the arrow, and every room the arrow does not know."""
    found = []
    for file in sorted(source.rglob("*.py")):
        room = room_of(file, source)
        if room not in LEVEL:
            found.append(f"{room} is a new room: give it a place in ARROW, and in the design")
            continue
        for line, module, name in imported(file, source):
            if (wrong := fault(room, module, name, source)) is not None:
                found.append(f"{file.relative_to(source)}:{line}: {wrong}")
    return found


def test_nothing_points_back_or_reaches_past_a_front_door() -> None:
    assert violations(SOURCE) == []


def test_every_place_in_the_arrow_is_inhabited() -> None:
    assert {room_of(file, SOURCE) for file in SOURCE.rglob("*.py")} == set(LEVEL)


def test_the_contribution_guide_lists_the_same_rooms_in_the_same_order() -> None:
    guide = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The rooms")[2]
    lines = [line.strip() for line in guide.partition("| room |")[0].splitlines() if line.startswith("    ")]
    assert lines == [", ".join(rooms) for rooms in ARROW]


@pytest.mark.parametrize(
    ("file", "code", "wrong"),
    [
        ("rules/x.py", "from feedalign.lab.training import train", "rules imports lab.training"),
        ("rules/x.py", "import feedalign.lab.report", "rules imports lab.report"),
        ("rules/x.py", "from feedalign import cli", "rules imports cli"),
        ("rules/x.py", "def f():\n    from feedalign.alignment import gradient_alignment", "rules imports alignment"),
        (
            "rules/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from feedalign.verify import validate",
            "rules imports verify",
        ),
        ("rules/x.py", "from ..lab.runs import run_once", "rules imports lab.runs"),
        ("rules/x.py", "from ..lab import runs", "rules imports lab.runs"),
        ("rules/x.py", "import importlib\nimportlib.import_module('feedalign.lab.runs')", "rules imports lab.runs"),
        ("rules/x.py", "from feedalign import DFA", "rules imports DFA of the package itself"),
        ("lab/report/x.py", "import feedalign", "lab.report imports all of the package itself"),
        ("geometry.py", "from feedalign.feedback import Gaussian", "geometry imports feedback"),
        ("errors.py", "from feedalign.lab.files import replacing", "errors imports lab.files"),
        ("theory/linear.py", "from feedalign.feedback import Gaussian", "theory imports feedback"),
        ("networks/x.py", "from feedalign.rules import DFA", "networks imports rules"),
        ("networks/x.py", "from feedalign.alignment import weight_alignment", "networks imports alignment"),
        ("alignment/x.py", "from feedalign.diagnosis import diagnose", "alignment imports diagnosis"),
        ("theory/x.py", "def f():\n    import torch.nn", "theory imports torch"),
        ("theory/shallow/x.py", "from torch import Tensor", "theory imports torch"),
        (
            "lab/training/x.py",
            "from feedalign.lab.data.fetching import fetch",
            r"lab.training reaches into lab.data: fetching\.fetch",
        ),
        (
            "lab/training/x.py",
            "from feedalign.lab.data import fetching",
            "lab.training reaches into lab.data: fetching",
        ),
        ("lab/training/x.py", "import feedalign.lab.data.fetching", "lab.training reaches into lab.data: fetching"),
        (
            "lab/training/x.py",
            "from feedalign.lab.files import _secret",
            r"lab.training uses the private lab.files\._secret",
        ),
        ("attic/x.py", "", "attic is a new room"),
        ("attic.py", "", "attic is a new room"),
    ],
)
def test_the_checker_catches(tmp_path: Path, file: str, code: str, wrong: str) -> None:
    (tmp_path / "lab/data").mkdir(parents=True)
    (tmp_path / "lab/data/__init__.py").write_text(
        "from feedalign.lab.data.fetching import fetch\n\n__all__ = ['fetch']\n"
    )
    (tmp_path / "lab/data/fetching.py").write_text("def fetch() -> None: ...\n")
    assert violations(tmp_path) == []
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(code + "\n")
    found = violations(tmp_path)
    assert len(found) == 1
    assert re.search(wrong, found[0])


def test_the_checker_lets_the_front_door_and_the_ground_floor_pass(tmp_path: Path) -> None:
    (tmp_path / "lab/data").mkdir(parents=True)
    (tmp_path / "lab/data/__init__.py").write_text("__all__ = ['fetch']\n")
    (tmp_path / "lab/training").mkdir()
    (tmp_path / "lab/training/x.py").write_text(
        "import torch\nfrom feedalign.lab import data\nfrom feedalign.lab.data import fetch\n"
        "import feedalign.lab.data\n"
        "from feedalign.errors import DataError\nfrom feedalign.lab.training.y import z\nfrom . import y\n"
    )
    assert violations(tmp_path) == []


def front_doors() -> list[str]:
    """Names of all packages, the root included; those of `theory` have front doors of their own."""
    folders = [file.parent.relative_to(SOURCE) for file in SOURCE.rglob("__init__.py")]
    return sorted(".".join(("feedalign", *folder.parts)) for folder in folders)


def test_every_folder_of_code_is_a_room() -> None:
    assert all((file.parent / "__init__.py").exists() for file in SOURCE.rglob("*.py"))


def isort_key(name: str) -> tuple[int, str]:
    """Constants (and `MLP`, which looks like one), then classes, then the rest, as ruff sorts them."""
    return 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name


@pytest.mark.parametrize("name", front_doors())
def test_a_front_door_lists_names_that_exist_and_are_documented(name: str) -> None:
    room = importlib.import_module(name)
    assert (room.__doc__ or "").strip()
    names = room.__all__
    assert len(set(names)) == len(names)
    if name != "feedalign":  # there lazy_loader makes the list, of a set
        assert list(names) == sorted(names, key=isort_key)
    for public in names:
        assert not public.startswith("_")
        value = getattr(room, public)
        if isinstance(value, ModuleType) or inspect.isclass(value) or inspect.isroutine(value):
            assert (value.__doc__ or "").strip(), f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", [door for door in front_doors() if door != "feedalign"])
def test_a_rooms_names_are_written_out(name: str) -> None:
    room = name.removeprefix("feedalign.")
    assert public_names(room, SOURCE) == set(importlib.import_module(name).__all__)


def test_the_package_shows_its_public_names() -> None:
    expected = {"DFA", "Backprop", "ReadoutOnly", "FeedalignError", "errors", "feedback", "lab", "networks", "theory"}
    expected |= {"cross_seed_overlap", "gradient_alignment", "weight_alignment"}
    assert expected <= set(feedalign.__all__) <= set(dir(feedalign))


def test_the_version_is_the_installed_one() -> None:
    assert feedalign.__version__ == importlib.metadata.version("feedalign")


@pytest.mark.parametrize(
    "code",
    ["import feedalign", "from feedalign.theory import shallow", "import feedalign.cli", "import feedalign.errors"],
)
def test_torch_is_not_loaded_before_it_is_used(code: str) -> None:
    code += "; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_using_a_name_loads_what_it_needs() -> None:
    """The control of the test above: torch would be seen."""
    code = "import feedalign; feedalign.DFA; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
