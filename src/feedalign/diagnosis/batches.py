"""The user's batches: read again and again from the same random numbers, and every fault told in words."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feedalign.errors import ArgumentError, DataError, FeedalignError

# What `diagnose` takes: a list or DataLoader, or a function that returns a new iterable each time it is called.
Source = Iterable[Any] | Callable[[], Iterable[Any]]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context the global generators of torch, numpy and random begin at a seed; afterwards as before."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002 — the one users draw from
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            # The user's data sets may draw from numpy's global generator, and both nets must see the same batches.
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


@contextmanager
def told(what: str, remedy: str) -> Iterator[None]:
    """Turn what the user's code raises into an ArgumentError that says where it was raised, and what to do.

    `sys.exit` counts: a data set that ends the program must not end it without a word. The house's own errors say
    already what to do.
    """
    try:
        yield
    except (ArgumentError, DataError):
        raise
    except FeedalignError as error:
        raise ArgumentError(str(error)) from error
    except (Exception, SystemExit) as error:
        raise ArgumentError(f"{what} raised {type(error).__name__}: {error}; {remedy}") from error


class Batches:
    """Pairs (x, y) that can be read from the beginning as often as needed.

    Args:
        source: an iterable that begins anew at each `iter`, or a function that returns an iterable.

    Raises:
        ArgumentError: the source is neither, or can be iterated only once.
    """

    def __init__(self, source: Source) -> None:
        if isinstance(source, str | Tensor) or not (isinstance(source, Iterable) or callable(source)):
            raise ArgumentError(
                f"batches is {kind_of(source)}, expected pairs (x, y) that can be iterated, such as a DataLoader or a "
                "list, or a function that returns them"
            )
        if isinstance(source, Iterator):
            raise ArgumentError(
                "the batches can be iterated only once, but are read several times: before training and by each "
                "net; give a DataLoader, a list, or a function that returns a new generator"
            )
        self._source = source

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Read from the beginning to the end.

        Raises:
            ArgumentError: the user's code raised, a batch is no pair, or a batch is empty.
        """
        with told("iterating over the batches", "mend the data set"):
            source: Any = self._source
            iterator = iter(source if isinstance(source, Iterable) else source())
        for number in itertools.count():
            with told(f"reading batch {number}", "mend the data set"):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield pair_of(batch, number)

    def stream(self, steps: int) -> Iterator[tuple[Any, Any]]:
        """Read this many batches, from the beginning again after the last.

        Raises:
            ArgumentError: as `__iter__`, or there is no batch.
        """
        read = 0
        while read < steps:
            before = read
            for batch in self:
                yield batch
                read += 1
                if read == steps:
                    return
            if read == before:
                raise ArgumentError(
                    "there is no batch: what was given to iterate over is empty"
                    + (" the second time; it must begin anew at each iteration" if read else "")
                    + "; give at least one pair (x, y)"
                )


def pair_of(batch: Any, number: int) -> tuple[Any, Any]:
    """Return (x, y) of a batch, x as a Tensor or a tuple of inputs; ArgumentError if it is no pair or empty."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise ArgumentError(
            f"batch {number} is {kind_of(batch)}, expected a pair (x, y); y is whatever the loss function takes"
        )
    x, y = batch
    if any(isinstance(side, Tensor) and side.numel() == 0 for side in (x, y)):
        raise ArgumentError(f"batch {number} holds no samples; leave empty batches out")
    return (tuple(x) if isinstance(x, list) else x), y


def arguments(x: Any) -> tuple[Any, ...]:
    """Return what the model is called with: a tuple holds several inputs, anything else is one."""
    return x if isinstance(x, tuple) else (x,)


def probe_of(batches: Batches, samples: int) -> tuple[Any, Any]:
    """Return as many samples as asked for from the first batches; the first batch where batches cannot be joined.

    Raises:
        ArgumentError: there is no batch, or as `Batches`.
    """
    joined: list[tuple[Any, Any]] = []
    count = 0
    for x, y in batches:
        if joined and _shapes(x, y) != _shapes(*joined[0]):
            break
        joined.append((x, y))
        if _shapes(x, y) is None:
            break
        count += len(x)
        if count >= samples:
            break
    if not joined:
        raise ArgumentError("there is no batch: what was given to iterate over is empty; give at least one (x, y)")
    if _shapes(*joined[0]) is None:
        return joined[0]
    x, y = (torch.cat(side)[:samples] for side in zip(*joined, strict=True))
    return x, y


def _shapes(x: Any, y: Any) -> tuple[Any, ...] | None:
    """Return shape and type of one sample; None where samples cannot be joined along a first axis."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim and y.ndim and len(x) == len(y)):
        return None
    return x.shape[1:], y.shape[1:], x.dtype, y.dtype, x.device, y.device


def kind_of(value: Any) -> str:
    """Say of what type a value is, with its length if that matters."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
