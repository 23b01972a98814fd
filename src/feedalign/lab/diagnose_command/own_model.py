"""Code of the user's own, named on the command line: imported, called, and what it returns checked."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from feedalign.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class OwnModel:
    """What the user's function made.

    Attributes:
        model: wrapped in a rule or bare.
        loss_fn: scalar loss of (output, y).
        batches: pairs (x, y).
        points: names of the feedback points; () where none came.
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batches: Any
    points: tuple[str, ...]


@contextmanager
def at_home() -> Iterator[None]:
    """Within this context the user's code can import its neighbours in the present folder, and prints to stderr.

    Code may import a neighbour as late as in `forward`, so this surrounds all that runs it. The command's own output
    is on stdout, and what the user's code prints must not stand in the middle of it.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if here in sys.path:  # the user's code may have taken it out
            sys.path.remove(here)


def made_by(spec: str) -> OwnModel:
    """Call "package.module:function" and return what it made.

    Args:
        spec: importable from the present folder, or installed.

    Raises:
        ArgumentError: there is no such function, it raised or called `sys.exit`, or it made something else; says what
            to do.
    """
    module = module_of(spec)
    name = spec.partition(":")[2]
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError(f"model={spec!r}: {module.__name__} has no function {name!r}; define it there")
    try:
        made = function()
    except (Exception, SystemExit) as error:
        raise ArgumentError(
            f"model={spec!r}: {name}() raised {type(error).__name__}: {error}; it must run without arguments"
        ) from error
    if not (isinstance(made, tuple) and len(made) in (3, 4)):
        raise ArgumentError(
            f"model={spec!r}: {name}() returned {_kind_of(made)}, expected a tuple (model, loss function, batches), or "
            "with the names of the points as a fourth"
        )
    model, loss_fn, batches, *rest = made
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model={spec!r}: first came {_kind_of(model)}, expected a torch.nn.Module")
    if not callable(loss_fn):
        raise ArgumentError(
            f"model={spec!r}: second came {_kind_of(loss_fn)}, expected a loss function of (output, y), such as "
            "torch.nn.functional.cross_entropy"
        )
    return OwnModel(model, loss_fn, batches, _names(spec, rest[0]) if rest else ())


def module_of(spec: str) -> ModuleType:
    """Import the module of "package.module:function".

    Raises:
        ArgumentError: the text has another form, or the module cannot be imported.
    """
    module, separator, name = spec.partition(":")
    if not (separator and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ArgumentError(f"model={spec!r} must be package.module:function, such as mine.nets:small")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        asked = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        what = "it" if asked else f"{error.name!r}, which it imports,"
        raise ArgumentError(
            f"model={spec!r}: cannot import {module}: {what} is not found; run in the folder that holds it, or "
            "install it"
        ) from error
    except (Exception, SystemExit) as error:
        raise ArgumentError(
            f"model={spec!r}: importing {module} raised {type(error).__name__}: {error}; mend the module"
        ) from error


def sources(spec: str) -> list[bytes]:
    """Return the source files that decide what the user's function does: its own, and every neighbour it has imported.

    Neighbours are the loaded modules whose files lie below the present folder, or beside the function's own file. What
    is installed elsewhere is taken to stay as it is.
    """
    own = module_of(spec).__file__
    homes = [Path.cwd().resolve(), *([] if own is None else [Path(own).resolve().parent])]
    files = {
        Path(file).resolve()
        for module in list(sys.modules.values())
        if isinstance(file := getattr(module, "__file__", None), str)
    }
    near = [
        file
        for file in files
        if "site-packages" not in file.parts and any(file.is_relative_to(home) for home in homes) and file.is_file()
    ]
    return [file.read_bytes() for file in sorted(near)]


def _names(spec: str, points: Any) -> tuple[str, ...]:
    named = (points,) if isinstance(points, str) else tuple(points) if isinstance(points, Iterable) else (points,)
    for name in named:
        if not isinstance(name, str):
            raise ArgumentError(
                f"model={spec!r}: among the points came {_kind_of(name)}, expected dotted names of modules, such as "
                "'layers.1'"
            )
    return named


def _kind_of(value: Any) -> str:
    return (
        f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
    )
