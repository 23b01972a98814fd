"""Code of the user's own, named on the command line: imported, called, and what it returns checked."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from torch import nn

from feedalign.diagnosis import kind_of, told
from feedalign.errors import ArgumentError
from feedalign.lab.diagnose_command.subject import Subject

# Of the names of points that the user's function gives: an endless generator would fill the memory.
MOST_POINTS = 10_000


@contextmanager
def at_home() -> Iterator[None]:
    """Within this context the user's code can import its neighbours in the present folder, and prints to stderr.

    Code may import a neighbour as late as in `forward`, so this surrounds all that runs it. The command's own output
    is on stdout, and what the user's code prints must not stand in the middle of it. `os._exit` raises SystemExit, so
    that the command can say who ended it. Folders that the user's code takes out of `sys.path` are put back
    afterwards, because this program needs them.
    """
    here, folders = os.getcwd(), list(sys.path)
    sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr), _exit_told():
            yield
    finally:
        if here in sys.path:  # the user's code may have taken it out
            sys.path.remove(here)
        sys.path += [folder for folder in folders if folder not in sys.path]


@contextmanager
def _exit_told() -> Iterator[None]:
    """Within this context `os._exit` raises SystemExit in this process; forked processes really end by it."""
    process, really = os.getpid(), os._exit

    def exit_told(status: int) -> NoReturn:
        if os.getpid() == process:
            raise SystemExit(f"os._exit({status})")
        really(status)

    os._exit = exit_told
    try:
        yield
    finally:
        os._exit = really


def made_by(spec: str, points: tuple[str, ...]) -> Subject:
    """Call "package.module:function" and return what it made.

    Args:
        spec: importable from the present folder, or installed.
        points: names of the feedback points; those that the function returns, if any, where this is empty.

    Raises:
        ArgumentError: there is no such function, it raised or called `sys.exit`, or it made something else; says what
            to do.
    """
    module = _module_of(spec)
    name = spec.partition(":")[2]
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError(f"model={spec!r}: {module.__name__} has no function {name!r}; define it there")
    with told(f"model={spec!r}: {name}()", "it must run without arguments"):
        made = function()
    if not (isinstance(made, tuple) and len(made) in (3, 4)):
        raise ArgumentError(
            f"model={spec!r}: {name}() returned {kind_of(made)}, expected a tuple (model, loss function, batches), or "
            "with the names of the points as a fourth"
        )
    model, loss_fn, batches, *rest = made
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model={spec!r}: first came {kind_of(model)}, expected a torch.nn.Module")
    if not callable(loss_fn):
        raise ArgumentError(
            f"model={spec!r}: second came {kind_of(loss_fn)}, expected a loss function of (output, y), such as "
            "torch.nn.functional.cross_entropy"
        )
    named = _names(spec, *rest) if rest else ()
    return Subject(spec, model, loss_fn, batches, points or named or "auto", _sources(module))


def _module_of(spec: str) -> ModuleType:
    """Import the module of "package.module:function"."""
    module, separator, name = spec.partition(":")
    if not (separator and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ArgumentError(f"model={spec!r} must be package.module:function, such as mine.nets:small")
    with told(f"model={spec!r}: importing {module}", "mend the module"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            asked = error.name is not None and f"{module}.".startswith(f"{error.name}.")
            what = "it" if asked else f"{error.name!r}, which it imports,"
            raise ArgumentError(
                f"model={spec!r}: cannot import {module}: {what} is not found; run in the folder that holds it, or "
                "install it"
            ) from error


def _sources(module: ModuleType) -> tuple[bytes, ...]:
    """Return the source files that decide what the user's function does: its own, and every neighbour it has imported.

    Neighbours are the loaded modules whose files lie below the present folder, or beside the function's own file. What
    is installed elsewhere is taken to stay as it is.
    """
    homes = [Path.cwd().resolve(), *([Path(module.__file__).resolve().parent] if module.__file__ else [])]
    named = [getattr(loaded, "__file__", None) for loaded in list(sys.modules.values())]
    files = {Path(file).resolve() for file in named if isinstance(file, str)}
    return tuple(
        file.read_bytes()
        for file in sorted(files)
        if "site-packages" not in file.parts and any(file.is_relative_to(home) for home in homes) and file.is_file()
    )


def _names(spec: str, points: Any) -> tuple[str, ...]:
    with told(f"model={spec!r}: reading the points", "give a list of names"):
        several = isinstance(points, Iterable) and not isinstance(points, str)
        named = tuple(itertools.islice(points, MOST_POINTS + 1)) if several else (points,)
    if len(named) > MOST_POINTS:
        raise ArgumentError(f"model={spec!r}: there are more than {MOST_POINTS:,} points; give a list of names")
    for name in named:
        if not isinstance(name, str):
            raise ArgumentError(
                f"model={spec!r}: among the points came {kind_of(name)}, expected dotted names of modules, such as "
                "'layers.1'"
            )
    return named
