"""Code of the user's own, named on the command line: imported and called."""

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

from feedalign.diagnosis import kind_of, told
from feedalign.errors import ArgumentError

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
    here, folders, process, really_exit = os.getcwd(), list(sys.path), os.getpid(), os._exit

    def exit_told(status: int) -> NoReturn:
        if os.getpid() == process:  # a forked process really ends
            raise SystemExit(f"os._exit({status})")
        really_exit(status)

    sys.path.insert(0, here)
    os._exit = exit_told
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os._exit = really_exit
        if here in sys.path:  # the user's code may have taken it out
            sys.path.remove(here)
        sys.path += [folder for folder in folders if folder not in sys.path]


def called(option: str, spec: str) -> tuple[Any, tuple[bytes, ...]]:
    """Call "package.module:function" and return what the function returned, and the source files behind it.

    Args:
        option: name of the option that the user gave, for the messages.
        spec: importable from the present folder, or installed.

    Returns:
        What the function returned. The source files that decide what the function does: its own, and every neighbour
        that was imported. Neighbours are the loaded modules whose files lie below the present folder, or beside the
        function's own file. What is installed elsewhere is taken to stay as it is.

    Raises:
        ArgumentError: there is no such function, or it raised or called `sys.exit`; says what to do.
    """
    module = _module_of(option, spec)
    name = spec.partition(":")[2]
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError(f"{option}={spec!r}: {module.__name__} has no function {name!r}; define it there")
    with told(f"{option}={spec!r}: {name}()", "it must run without arguments"):
        made = function()
    return made, _sources(module)


def names_of_points(option: str, spec: str, points: Any) -> tuple[str, ...]:
    """Return the names of the feedback points that the user's function has returned.

    Args:
        option: name of the option that the user gave, for the messages.
        spec: the function, for the messages.
        points: one name, or anything that can be iterated and holds names.

    Raises:
        ArgumentError: an entry is no name, there are too many of them, or reading them raised.
    """
    with told(f"{option}={spec!r}: reading the points", "give a list of names"):
        several = isinstance(points, Iterable) and not isinstance(points, str)
        named = tuple(itertools.islice(points, MOST_POINTS + 1)) if several else (points,)
    if len(named) > MOST_POINTS:
        raise ArgumentError(f"{option}={spec!r}: there are more than {MOST_POINTS:,} points; give a list of names")
    for name in named:
        if not isinstance(name, str):
            raise ArgumentError(
                f"{option}={spec!r}: among the points came {kind_of(name)}, expected dotted names of modules, such as "
                "'layers.1'"
            )
    return named


def _module_of(option: str, spec: str) -> ModuleType:
    """Import the module of "package.module:function"."""
    module, separator, name = spec.partition(":")
    if not (separator and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ArgumentError(f"{option}={spec!r} must be package.module:function, such as mine.nets:small")
    with told(f"{option}={spec!r}: importing {module}", "mend the module"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            asked = error.name is not None and f"{module}.".startswith(f"{error.name}.")
            what = "it" if asked else f"{error.name!r}, which it imports,"
            raise ArgumentError(
                f"{option}={spec!r}: cannot import {module}: {what} is not found; run in the folder that holds it, or "
                "install it"
            ) from error


def _sources(module: ModuleType) -> tuple[bytes, ...]:
    """Return the source files of a module and of its neighbours."""
    homes = [Path.cwd().resolve(), *([Path(module.__file__).resolve().parent] if module.__file__ else [])]
    named = [getattr(loaded, "__file__", None) for loaded in list(sys.modules.values())]
    files = {Path(file).resolve() for file in named if isinstance(file, str)}
    return tuple(
        file.read_bytes()
        for file in sorted(files)
        if "site-packages" not in file.parts and any(file.is_relative_to(home) for home in homes) and file.is_file()
    )
