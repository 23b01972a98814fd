"""Inner products of many pairs of derivatives, fast enough to be taken beside a training step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PIECE = 2**15  # numbers; as float64 they stay in the cache

Products = NDArray[np.float64]


@np.errstate(invalid="ignore", over="ignore")  # what is not finite the products tell
def inner_products(pairs: Iterable[tuple[str, Tensor, Tensor]], batch_dims: int) -> dict[str, Products]:
    """Return a·a, a·b and b·b over the features of named pairs a, b [*batch, *features]: [3, *batch], by name.

    In float64, since squares in single precision would underflow. Pairs of one name add up. Large ones are taken as
    they come, piece by piece; small ones of one shape all at once, in numpy: their products take less time than the
    calls.
    """
    sums: dict[str, Products] = {}
    small: dict[torch.Size, list[tuple[str, Tensor, Tensor]]] = {}

    def add(name: str, products: Products) -> None:
        sums[name] = sums[name] + products if name in sums else products

    for name, a, b in pairs:
        if a.numel() > _PIECE:
            add(name, _piece_by_piece(a, b, batch_dims))
        else:
            small.setdefault(a.shape, []).append((name, a, b))
    for shape, alike in small.items():
        names, left, right = zip(*alike, strict=True)
        both = torch.stack(left + right).double().cpu().numpy()
        both = both.reshape(2, len(names), *shape[:batch_dims], shape[batch_dims:].numel())
        three = np.array(_three(np.vecdot, *both))
        for i, name in enumerate(names):
            add(name, three[:, i])
    return sums


def _piece_by_piece(a: Tensor, b: Tensor, batch_dims: int) -> Products:
    batch = a.shape[:batch_dims]
    if batch:
        rows = max(1, _PIECE * batch.numel() // a.numel())
        sides = [side.reshape(batch.numel(), -1).split(rows) for side in (a, b)]
    elif a.ndim == 2 and a.mT.is_contiguous() and b.mT.is_contiguous():  # as a linear layer's gradients are in memory
        sides = [side.mT.flatten().split(_PIECE) for side in (a, b)]
    else:
        sides = [side.flatten().split(_PIECE) for side in (a, b)]
    pieces = [torch.stack(_three(torch.linalg.vecdot, u.double(), v.double())) for u, v in zip(*sides, strict=True)]
    joined = torch.cat(pieces, -1).reshape(3, *batch) if batch else torch.stack(pieces).sum(0)
    found: Products = joined.cpu().numpy()
    return found


def _three(vecdot: Any, a: Any, b: Any) -> list[Any]:
    return [vecdot(a, a), vecdot(a, b), vecdot(b, b)]
