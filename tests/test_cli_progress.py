"""How far the jobs are: lines with the time left where there is no terminal, a bar where there is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Two experiments that share their jobs, each job a fifth of a second long.
COMMAND = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.cases.experiments import Config, Parabola, Point
from feedalign.cli import main
from feedalign.lab import reproduction

found = {{name: Parabola(name, CONFIGS={{"quick": Config(points)}}) for name, points in
          (("two-phases", 3), ("layerwise", 5))}}
reproduction.get = found.__getitem__
compute = Point.compute
Point.compute = lambda point, desk: time.sleep(0.2) or compute(point, desk)
sys.exit(main(["reproduce", "--workers", "1", *sys.argv[1:]]))
"""
VERDICT = "  supported: it ends above 3: 4 [3.7, 4.3], expected above 3, 7 independent runs"


def test_elsewhere_a_line_for_each_tenth_says_how_long_it_will_take(tmp_path: Path) -> None:
    args = [sys.executable, "-c", COMMAND]
    first = subprocess.run([*args, "two-phases"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "3 jobs\n" in first.stdout
    lines = first.stderr.splitlines()
    assert [re.fullmatch(r"3 jobs: (\d+) %, 0:00:\d\d left", line) is not None for line in lines] == [True] * len(lines)
    assert lines[-1] == "3 jobs: 100 %, 0:00:00 left"
    assert len(lines) == len(set(lines)) >= 3
    both = subprocess.run([*args, "two-phases", "layerwise"], capture_output=True, text=True, check=True, cwd=tmp_path)
    # The jobs of the first experiment need not be asked for again; those that the second shares count as done.
    assert both.stderr.startswith("5 jobs: 60 %\n5 jobs: 70 %, 0:00:0")


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_on_a_terminal_the_bar_stays_below_what_is_printed_meanwhile(tmp_path: Path) -> None:
    written = in_terminal([sys.executable, "-c", COMMAND, "two-phases", "layerwise"], tmp_path)
    # What stands on the screen: each line after its last "erase this line".
    lines = [re.split(r"\r?\x1b\[2K", line)[-1] for line in written.split("\r\n")]
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in lines]
    assert VERDICT in plain
    assert (
        plain.index("two-phases")
        < plain.index("layerwise")
        < plain.index("2 of 2 claims supported; report: feedalign-report.html")
    )
    assert [line for line in plain if "━" in line and not re.match(r"5 jobs ━+ +100% 0:00:\d\d 0:00:00$", line)] == []


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_a_bar_on_a_terminal_takes_nothing_from_a_file(tmp_path: Path) -> None:
    written = in_terminal(["sh", "-c", '"$0" -c "$1" two-phases > out.txt', sys.executable, COMMAND], tmp_path)
    assert "━" in written
    out = (tmp_path / "out.txt").read_text()
    assert VERDICT in out
    assert "━" not in out


def in_terminal(command: list[str], folder: Path) -> str:
    """What a command writes to a terminal of 120 columns."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment) as process:
        os.close(theirs)
        content = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side is closed, says Linux
                break
            if not part:
                break
            content += part
    os.close(ours)
    assert process.returncode == 0, content.decode()
    return content.decode()
