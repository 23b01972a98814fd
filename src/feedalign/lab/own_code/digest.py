"""Digests of what the user's code has made: a result is taken from its folder only if nothing has changed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def got(read: Callable[[], Any]) -> Any:
    """Return what is read; an object of no known kind, which makes the digest new, where that raises."""
    try:
        return read()
    except Exception:
        return object()


def _numbers(tensor: Tensor) -> Any:
    dense = tensor.detach().cpu()
    dense = dense if dense.layout == torch.strided else dense.to_dense()
    return dense.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy()


def take_in(digest: Any, value: Any) -> None:
    """Take a value into a digest, with its kind, so that no two values look alike."""
    if isinstance(value, Tensor):
        # Tensors on the meta device have no numbers, and those of lazy modules not even a shape.
        take_in(digest, got(lambda: ["tensor", str(value.dtype), tuple(value.shape), _numbers(value)]))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"array {value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        take_in(digest, ["mapping", list(value.items())])
    elif isinstance(value, tuple | list):
        digest.update(f"sequence {len(value)}".encode())
        for entry in value:
            take_in(digest, entry)
    elif isinstance(value, str | bytes | int | float | complex | np.generic | None):
        digest.update(f"{type(value).__name__} {value!r} ".encode())
    else:
        digest.update(uuid.uuid4().bytes)
