"""What the commands print: lines, tables and progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feedalign.terminal import Output

if TYPE_CHECKING:
    from feedalign.lab.experiments import Progress

out = Output("stdout")
err = Output("stderr")


def show_table(heading: list[str], rows: list[list[str]]) -> None:
    """Print a table, as wide as it is: rich would cut it to the width it takes a pipe to have."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        out.print(
            "  ".join(f"{entry:{width}}" for entry, width in zip(row, widths, strict=True)).rstrip(), markup=False
        )


@contextmanager
def progress(name: str) -> Iterator[Progress]:
    """Print a computation's name and show its progress: a bar on a terminal, elsewhere a line every tenth."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    terminal = err.console.is_terminal
    with bars.Progress(*columns, console=err.console, disable=not terminal) as bar:
        task = bar.add_task(name, total=None)
        tenths = 0

        def tell(done: int, total: int) -> None:
            nonlocal tenths
            bar.update(task, completed=done, total=total)
            if not terminal and 10 * done // total > tenths:
                tenths = 10 * done // total
                err.print(f"{name}: {10 * tenths} %")

        out.print(f"[bold]{name}[/bold]")
        yield tell
        bar.update(task, completed=1, total=1)
