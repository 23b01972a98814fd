"""A function in a process of its own: a crash or a hang of other people's compiled code ends that process alone."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

SECONDS = 300


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Return function(*args), computed in a copy of this process.

    Raises:
        RuntimeError: the process has ended without an answer, or has given none in time.
    """
    context = multiprocessing.get_context("fork")  # the models' packages take seconds to import
    answer, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        if answer.poll(SECONDS):
            return answer.recv()
        raise RuntimeError(f"no answer within {SECONDS} seconds")
    except EOFError:
        process.join()
        code = process.exitcode or 0
        ended = signal.Signals(-code).name if code < 0 else f"status {code}"
        raise RuntimeError(f"the process was ended by {ended}, which no Python code can catch") from None
    finally:
        process.kill()
        process.join()


def _run(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    sender.send(function(*args))
    sender.close()
