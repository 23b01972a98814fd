"""Which entries of a batch count: those that have an error.

An entry whose error is exactly zero, such as padding under `ignore_index`, teaches nothing. It must not change what the
others are sent either, so rules that count or average leave it out.
"""

from __future__ import annotations

from torch import Tensor


def with_error(error: Tensor) -> Tensor:
    """Return which entries have an error, [*batch], from the error [*batch, C]."""
    return (error != 0).any(-1)


def entries_with_error(error: Tensor) -> Tensor:
    """Return how many entries have an error, at least 1, as a Tensor without axes."""
    return with_error(error).sum().clamp(min=1)
