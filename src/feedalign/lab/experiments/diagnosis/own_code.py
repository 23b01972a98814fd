"""Code of the user's own, named on the command line: imported, called, and what it returns checked."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.errors import ArgumentError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context torch's own generator begins at a seed; afterwards it is as before."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def made_by(spec: str, seed: int) -> tuple[nn.Module, Callable[[Any, Any], Tensor], Iterable[Any], tuple[str, ...]]:
    """Call "package.module:function" and return what it made: model, loss function, batches, names of points or none.

    Args:
        spec: importable from the present folder, or installed.
        seed: of torch's own generator while the function runs.

    Raises:
        ArgumentError: there is no such function, or it made something else; says what to do.
    """
    module, _, name = spec.partition(":")
    function = getattr(module_of(spec), name, None)
    if not callable(function):
        raise ArgumentError(f"model={spec!r}: {module} has no function {name!r}; define it there")
    with seeded(seed):
        try:
            made = function()
        except Exception as error:
            raise ArgumentError(
                f"model={spec!r}: {name}() raised {type(error).__name__}: {error}; it must run without arguments"
            ) from error
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
    if not isinstance(batches, Iterable) or isinstance(batches, str | Tensor):
        raise ArgumentError(
            f"model={spec!r}: third came {kind_of(batches)}, expected batches (x, y) that can be iterated, such as a "
            "DataLoader or a list"
        )
    if iter(batches) is batches:
        raise ArgumentError(
            f"model={spec!r}: the batches can be iterated only once, but are looked at before training too; "
            "return a DataLoader or a list instead of a generator"
        )
    named = rest[0] if rest else ()
    return model, loss_fn, batches, (named,) if isinstance(named, str) else tuple(named)


def module_of(spec: str) -> Any:
    """Import the module of a spec; ArgumentError says why it cannot be."""
    module, separator, name = spec.partition(":")
    if not (separator and module and name):
        raise ArgumentError(f"model={spec!r} must be package.module:function, such as mine.nets:small")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        what = "it" if error.name in (module, module.partition(".")[0]) else f"{error.name!r}, which it imports,"
        raise ArgumentError(
            f"model={spec!r}: cannot import {module}: {what} is not found; run in the folder that holds it, or "
            "install it"
        ) from error
    except Exception as error:
        raise ArgumentError(
            f"model={spec!r}: importing {module} raised {type(error).__name__}: {error}; mend the module"
        ) from error
    finally:
        sys.path.remove(here)


def kind_of(value: Any) -> str:
    """Say of what type a value is, with its length if that matters."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
