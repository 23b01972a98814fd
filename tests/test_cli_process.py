"""The command line as a process of its own: its help, its exit status, and what it loads before it answers."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest


def command(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-m", "feedalign", *args]
    return subprocess.run(code, capture_output=True, text=True, check=False, **options)


def test_the_command_helps() -> None:
    done = command("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("usage: feedalign", "reproduce", "diagnose", "theory", "list", "data"))


def test_the_command_passes_its_status_on(tmp_path: Path) -> None:
    wrong = command("explode", cwd=tmp_path)
    unknown = command("reproduce", "three-phases", cwd=tmp_path)
    for done in (wrong, unknown):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_installed_script_is_the_same_command() -> None:
    (script,) = entry_points(group="console_scripts", name="feedalign")
    assert script.value == "feedalign.__main__:main"
    with pytest.raises(SystemExit, match="0"):
        script.load()(["--help"])


@pytest.mark.parametrize(
    "args",
    [["list"], ["--help"], ["reproduce", "--help"], ["theory", "--help"], ["train", "--help"],
     ["sweep", "--help"], ["explode"], ["reproduce", "three-phases"],
     ["reproduce", "two-phases", "--dataset", "mnist"], ["reproduce", "--report", "."]],
    ids=" ".join,
)  # fmt: skip
def test_quick_answers_load_nothing_slow(args: list[str]) -> None:
    code = f"""
import atexit, sys
slow = {{"torch", "numpy", "numba", "scipy", "xarray", "matplotlib", "sklearn", "pooch"}}
atexit.register(lambda: print("loaded:", sorted(slow & set(sys.modules))))
from feedalign.cli import main
sys.exit(main({args!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "loaded: []"
    assert "Traceback" not in done.stderr


def test_loading_the_command_line_loads_no_parser() -> None:
    """Until `main` runs, nothing turns Ctrl-C into a status: what takes time is loaded within `main`."""
    code = "import sys, feedalign.cli; print(sorted({'tyro.conf', 'rich', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
