"""The user's batches, which can be read from the beginning as often as needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from feedalign.anatomy import recordable
from feedalign.diagnosis.users_code import kind_of, told
from feedalign.errors import ArgumentError

# What `diagnose` takes: a list or DataLoader, or a function that returns a new iterable each time it is called.
Source = Iterable[Any] | Callable[[], Iterable[Any]]


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
        self._were_there = False

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Read from the beginning to the end; ArgumentError if the user's code raised, or there is no proper batch."""
        with told("iterating over the batches", "mend the data set"):
            source: Any = self._source
            iterator = iter(source if isinstance(source, Iterable) else source())
        for number in itertools.count():
            with told(f"reading batch {number}", "mend the data set"):
                try:
                    batch = next(iterator)
                except StopIteration:
                    break
            self._were_there = True
            yield _pair(batch, number)
        if number == 0:
            again = " the second time; it must begin anew at each iteration" if self._were_there else ""
            raise ArgumentError(
                f"there is no batch: what was given to iterate over is empty{again}; give at least one pair (x, y)"
            )

    def stream(self, steps: int) -> Iterator[tuple[Any, Any]]:
        """Read this many batches, from the beginning again after the last; errors as `__iter__`."""
        return itertools.islice(itertools.chain.from_iterable(itertools.repeat(self)), steps)

    def first(self, samples: int) -> tuple[Any, Any]:
        """Return as many samples as asked for from the first batches; one batch where batches cannot be joined."""
        joined: list[tuple[Any, Any]] = []
        alike: tuple[Any, ...] | None = None
        for x, y in self:
            shapes = _shapes(x, y)
            if joined and shapes != alike:
                break
            joined.append((x, y))
            alike = shapes
            if alike is None:
                return x, y
            if sum(len(x) for x, _ in joined) >= samples:
                break
        x, y = (torch.cat(side)[:samples] for side in zip(*joined, strict=True))
        return x, y


def _pair(batch: Any, number: int) -> tuple[Any, Any]:
    """Return (x, y) of a batch, several inputs as a tuple; ArgumentError if the batch is no pair or empty."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise ArgumentError(
            f"batch {number} is {kind_of(batch)}, expected a pair (x, y); y is whatever the loss function takes"
        )
    x, y = batch
    if any(isinstance(side, Tensor) and side.numel() == 0 for side in (x, y)):
        raise ArgumentError(f"batch {number} holds no samples; leave empty batches out")
    return recordable(tuple(x) if isinstance(x, list) else x), recordable(y)


def _shapes(x: Any, y: Any) -> tuple[Any, ...] | None:
    """Return shape and type of one sample; None where samples cannot be joined along a first axis."""
    if not all(isinstance(side, Tensor) and side.layout == torch.strided and side.ndim for side in (x, y)):
        return None
    if len(x) != len(y):
        return None
    return x.shape[1:], y.shape[1:], x.dtype, y.dtype, x.device, y.device
