"""Running the user's code: from a seed that leaves no trace, and with every fault told in words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from feedalign.anatomy import arguments, same_random_numbers
from feedalign.errors import ArgumentError, DataError, DivergenceError, FeedalignError
from feedalign.rules import Wrapped


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context the global generators of torch, numpy and random begin at a seed; afterwards as before."""
    # torch.manual_seed seeds every device, so the generators of all devices are put back, not those of one model.
    with same_random_numbers(nn.Identity()), torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        # The user's data sets may draw from numpy's global generator, and both nets must see the same batches.
        np.random.seed(seed % 2**32)  # noqa: NPY002 — the global state, which data sets use
        random.seed(seed)
        yield


@contextmanager
def told(what: str, remedy: str) -> Iterator[None]:
    """Turn what the user's code raises into an ArgumentError that says where it was raised, and what to do.

    `sys.exit` counts: a data set that ends the program must not end it without a word. So does every other exception
    but Ctrl-C. The house's own errors say already what to do.
    """
    try:
        yield
    except (ArgumentError, DataError, DivergenceError, KeyboardInterrupt):
        raise
    except FeedalignError as error:
        raise ArgumentError(str(error)) from error
    except BaseException as error:
        raise ArgumentError(f"{what} raised {type(error).__name__}: {_words(error)}; {remedy}") from error


def _words(error: BaseException) -> str:
    """Return what an exception of the user's says; its own words may fail."""
    try:
        return str(error)
    except Exception as fault:
        return f"(no words, for __str__ raised {type(fault).__name__})"


def kind_of(value: Any) -> str:
    """Say of what type a value is, with its length if that matters."""
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"


def output_on(model: nn.Module, x: Any) -> Any:
    """Return what a model, wrapped or bare, returns on one input, a tuple of inputs, or a dict of inputs by name."""
    args, kwargs = arguments(model.model if isinstance(model, Wrapped) else model, x)
    return model(*args, **kwargs)
