"""What the commands print: lines, tables and progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING

from feedalign.terminal import Output

if TYPE_CHECKING:
    from feedalign.lab.progress import Progress
    from feedalign.lab.runs import StoredRun

out = Output("stdout")
err = Output("stderr")


def say(line: str) -> None:
    """Print a line as it is."""
    out.console.print(line, markup=False)


def show_table(heading: list[str], rows: list[list[str]]) -> None:
    """Print a table, as wide as it is: rich would cut it to the width it takes a pipe to have."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        say("  ".join(f"{entry:{width}}" for entry, width in zip(row, widths, strict=True)).rstrip())


def show_run(room: ModuleType, run: StoredRun, files: str) -> int:
    """Print what a room of the laboratory says of its run, and where the files are; return the exit status."""
    show_table(*room.table(run.dataset))
    for line in room.summary(run.dataset):
        say(line)
    say(f"{files} are in {run.folder}")
    return 1 if room.diverged(run.dataset) else 0


@contextmanager
def progress(name: str) -> Iterator[Progress]:
    """Print a computation's name and show its progress: a bar on a terminal, elsewhere a line every tenth.

    The time left is what it would be at the mean speed so far.
    """
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    # Where both streams are one terminal, the bar and what is printed meanwhile must know of each other.
    console = out.console if out.console.is_terminal else err.console
    speed_over = float("inf")  # seconds: long jobs tell their progress seldom
    with bars.Progress(
        *columns, console=console, disable=not console.is_terminal, speed_estimate_period=speed_over
    ) as bar:
        task = bar.add_task(name, total=None)
        first, begin, tenths = -1, 0.0, 0

        def tell(done: int, total: int) -> None:
            nonlocal first, begin, tenths
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if first < 0:  # what was finished before says nothing about the speed
                first, begin = done, now
            if not console.is_terminal and 10 * done // total > tenths:
                tenths = 10 * done // total
                left = ""
                if done > first:
                    seconds = (now - begin) * (total - done) / (done - first)
                    left = f", {timedelta(seconds=round(seconds))} left"  # 0:01:30, as rich's bar writes a time
                console.print(f"{name}: {10 * tenths} %{left}")

        out.console.print(f"[bold]{name}[/bold]")
        yield tell
        bar.update(task, completed=1, total=1)
