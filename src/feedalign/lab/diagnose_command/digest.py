"""A digest of what decides a diagnosis, so that a result is taken from its folder only if nothing has changed."""

from __future__ import annotations

import copy
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feedalign.diagnosis import Batches, arguments

PACKAGE = Path(__file__).parents[2]


def batches_that_matter(batches: Batches, steps: int, samples: int) -> Iterator[tuple[Any, Any]]:
    """Read the batches that a diagnosis reads in one pass: those of the steps and those of the samples looked at."""
    seen = 0
    for number, (x, y) in enumerate(batches):
        if number >= steps and seen >= samples:
            return
        seen += len(y) if isinstance(y, Tensor) and y.ndim else 1
        yield x, y


def digest_of(
    code: Iterable[bytes],
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[tuple[Any, Any]],
) -> str:
    """Return a digest of this package, the user's code, the model with its weights, the batches and their losses.

    The losses are there because model and loss function may hold numbers that neither the code nor the weights show,
    such as class weights read from a file. Where a batch holds objects of unknown kinds the digest is new every time.
    """
    digest = hashlib.sha256()
    for source in (*(file.read_bytes() for file in sorted(PACKAGE.rglob("*.py"))), *code):
        digest.update(hashlib.sha256(source).digest())
    _update(digest, [repr(model), model.state_dict(), [weight.requires_grad for weight in model.parameters()]])
    twin = _copied(model)
    for x, y in batches:
        _update(digest, [x, y, _loss(twin, loss_fn, x, y)])
    return digest.hexdigest()[:16]


def _copied(model: nn.Module) -> nn.Module | None:
    """Return a copy in evaluation mode; None of a model that cannot be copied, which `diagnose` refuses in words."""
    try:
        return copy.deepcopy(model).eval()
    except Exception:
        return None


@torch.no_grad()
def _loss(model: nn.Module | None, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any) -> str:
    """Return the loss of a batch to all digits; what goes wrong here is told by `diagnose`, in words."""
    try:
        return "" if model is None else repr(loss_fn(model(*arguments(x)), y).tolist())
    except (Exception, SystemExit) as error:
        return type(error).__name__


def _update(digest: Any, value: Any) -> None:
    """Take a value into a digest, with its kind, so that no two values look alike."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        digest.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        dense = value.to_dense() if value.layout != torch.strided else value
        digest.update(dense.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"array {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}".encode())
        for key, entry in value.items():
            _update(digest, [key, entry])
    elif isinstance(value, tuple | list):
        digest.update(f"sequence {len(value)}".encode())
        for entry in value:
            _update(digest, entry)
    elif isinstance(value, str | bytes | int | float | complex | np.generic | None):
        digest.update(f"{type(value).__name__} {value!r} ".encode())
    else:
        digest.update(uuid.uuid4().bytes)
