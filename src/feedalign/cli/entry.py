"""The command line from its arguments to its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import lazy_loader

from feedalign.cli.commands import data, diagnose, explore, list_, reproduce, runs, sweep, theory, train_command
from feedalign.cli.printing import err, out
from feedalign.errors import ArgumentError, FeedalignError, TimeLimitError
from feedalign.terminal import any_encoding, never_missing

if TYPE_CHECKING:
    import tyro
else:
    tyro = lazy_loader.load("tyro")  # see `commands`


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; `SystemExit` after --help and after a usage error."""
    # Figures go to files. A backend for windows, which may not be installed here, is not to be loaded.
    os.environ["MPLBACKEND"] = "agg"
    try:
        with never_missing(), any_encoding():
            try:
                status = _run(args)
            finally:
                out.flush()
                err.flush()
    except KeyboardInterrupt:
        print(
            "feedalign: interrupted; finished runs are kept, and the same command goes on: unfinished runs from their "
            "last checkpoint",
            file=sys.stderr,
        )
        return 130
    return 141 if out.closed else status


def _run(args: Sequence[str] | None) -> int:
    try:
        given = sys.argv[1:] if args is None else list(args)
        commands: dict[str, Callable[..., Any]] = {
            "reproduce": reproduce,
            "train": train_command(given),
            "sweep": sweep,
            "diagnose": diagnose,
            "theory": theory,
            "explore": explore,
            "list": list_,
            "runs": runs,
            "data": data,
        }
        status: int = tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="feedalign",
            description="Train with direct feedback alignment, and know when it works. Begin with: feedalign reproduce",
            args=given,
        )
        return status
    except BrokenPipeError:  # while help was printed; what the commands print, they print on
        out.drop()
        return 141
    except (FeedalignError, OSError) as error:
        for line in (f"feedalign: {error}", *getattr(error, "__notes__", ())):  # a note says in which job
            err.console.print(line, markup=False)
        return 2 if isinstance(error, ArgumentError) else 1 if isinstance(error, TimeLimitError) else 3
