"""Standard output and standard error of the command line: no traceback for an encoding or for a closed pipe."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console


class Output:
    """One of the two standard streams. What is printed after its reader has gone is dropped, and work goes on.

    Attributes:
        name: "stdout" or "stderr".
        closed: whether the reader has gone.
    """

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self.name = name
        self.closed = False

    @cached_property
    def console(self) -> Console:
        """The rich console of the stream, loaded when it is first used."""
        from rich.console import Console

        output = self

        class QuietConsole(Console):
            def on_broken_pipe(self) -> None:
                self.quiet = True
                output.drop()

        # A console that is given no file follows sys.stdout and sys.stderr, also where these are replaced.
        return QuietConsole(stderr=self.name == "stderr", highlight=False, soft_wrap=True)

    def flush(self) -> None:
        """Write what is still buffered; a reader that has gone is noticed here at the latest."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self.drop()

    def drop(self) -> None:
        """Send all further output of the stream to nowhere, so that Python does not complain when it exits."""
        self.closed = True
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    @property
    def _stream(self) -> TextIO:
        return sys.stdout if self.name == "stdout" else sys.stderr


@contextmanager
def never_missing() -> Iterator[None]:
    """Within this context there are standard streams: what is printed to one that the caller has closed is dropped."""
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(sys.stdout or nowhere),  # None where the caller has closed the stream
        redirect_stderr(sys.stderr or nowhere),
    ):
        yield


@contextmanager
def any_encoding() -> Iterator[None]:
    """Print characters that the encoding of a standard stream lacks as escapes, as Python does on standard error."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            stream.reconfigure(errors=errors)
