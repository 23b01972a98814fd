"""`feedalign reproduce --set`: what it says, that its command repeats the run, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.cases.experiments import Parabola, Point

from feedalign.cli import main
from feedalign.lab import reproduction


@pytest.fixture(autouse=True)
def parabola(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An experiment that takes no time in place of two real ones, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduction, "get", Parabola)


def reproduce(*args: str) -> int:
    """`feedalign reproduce`, in this process."""
    return main(["reproduce", "--workers", "1", *args])


def refuse(*_args: Any) -> None:
    raise AssertionError("ran again")


def test_a_change_of_the_config_is_told_and_its_command_repeats_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce("two-phases", "--set", "points=4", "--set", "first_seed=7") == 0
    assert "  changed: points 4 instead of 3\n  changed: first_seed 7 instead of 0\n" in capsys.readouterr().out
    page = Path("feedalign-report.html").read_text(encoding="utf-8")
    command = page.split('<code class="command">feedalign ')[1].split("</code>")[0]
    assert command == "reproduce two-phases --preset quick --set points=4 --set first_seed=7"
    monkeypatch.setattr(Point, "compute", refuse)
    assert main(command.split()) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["two-phases", "--set", "point=4"], "'point' is unknown; known are points, dataset, first_seed"),
        (["two-phases", "--set", "points=a"], "points must be a whole number of at least 1, got 'a'"),
        (["two-phases", "--set", ""], "--set '' is no change; write NAME=VALUE, such as --set draws=8"),
        (["two-phases", "--set", "points="], "--set 'points=' is no change"),
        (["two-phases", "--set", "points=3"], "points is 3 already; leave this change out"),
        (["two-phases", "layerwise", "--set", "points=4"], "changes are for one experiment, since each has other"),
        (["--set", "points=4"], "changes are for one experiment, since each has other fields"),
    ],
)
def test_a_change_that_does_not_fit_gives_status_2_and_says_why(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert reproduce(*args) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
