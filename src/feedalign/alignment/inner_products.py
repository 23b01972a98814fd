"""Inner products of many pairs of derivatives, fast enough to be taken beside a training step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PIECE = 2**15  # numbers; as float64 they stay in the cache
_ROW = 2**13  # below what numpy's BLAS shares out among threads, however few are asked for
_PIECE_IN_TORCH = 2**22  # on a GPU, where a call costs more than these numbers

Products = NDArray[np.float64]


def inner_products(
    pairs: Iterable[tuple[str, Tensor | None, Tensor | None]], names: Sequence[str], batch: tuple[int, ...]
) -> Products:
    """Return a·a, a·b and b·b over the features of named pairs a, b [*batch, *features]: [3, names + 1, *batch].

    Last comes the sum over the names. Of what is not finite numpy warns, unless `np.errstate` says otherwise. In
    float64, since squares in single precision would underflow. Pairs of one name add up, and None stands for zeros.
    Large pairs are taken as they come, piece by piece; small ones of one shape all at once: their products take less
    time than the calls.
    """
    sums = np.zeros((3, len(names) + 1, *batch))
    place = {name: i for i, name in enumerate(names)}
    small: dict[torch.Size, list[tuple[int, Tensor, Tensor]]] = {}
    for name, a, b in pairs:
        if a is None or b is None:
            if (given := b if a is None else a) is None:
                continue
            a, b = (torch.zeros_like(given) if side is None else side for side in (a, b))
        if a.numel() > PIECE:
            sums[:, place[name]] += _of_large(a, b, len(batch))
        else:
            small.setdefault(a.shape, []).append((place[name], a, b))
    for shape, alike in small.items():
        places, left, right = zip(*alike, strict=True)
        both = torch.stack(left + right).double().cpu().numpy()
        both = both.reshape(2, len(places), *batch, shape[len(batch) :].numel())
        three = np.array(_three(np.vecdot, *both))
        for i, of_name in enumerate(places):
            sums[:, of_name] += three[:, i]
    sums[:, :-1].sum(1, out=sums[:, -1])
    return sums


def _of_large(a: Tensor, b: Tensor, batch_dims: int) -> Products:
    if not batch_dims:  # the sum over rows
        if a.ndim == 1:
            a, b = a[None], b[None]
        elif a.mT.is_contiguous() and b.mT.is_contiguous():  # as a linear layer's gradients are in memory
            a, b = a.mT, b.mT
        summed: Products = _of_large(a, b, 1).sum(-1)
        return summed
    batch = a.shape[:batch_dims]
    rows = in_numpy if a.is_cpu else in_torch
    return rows(*(side.reshape(batch.numel(), -1) for side in (a, b))).reshape(3, *batch)


def in_numpy(a: Tensor, b: Tensor) -> Products:
    """Return the products of rows [rows, features] on the CPU, which numpy casts and multiplies faster than torch."""
    known = torch.float32, torch.float64
    sides = [(side if side.dtype in known else side.float()).numpy() for side in (a, b)]
    features = a.shape[1]
    width = math.ceil(features / math.ceil(features / _ROW))
    height = max(1, PIECE // width)
    found = np.zeros((3, len(a)))
    for top in range(0, len(a), height):
        rows = slice(top, top + height)
        for left in range(0, features, width):
            piece = (side[rows, left : left + width].astype(np.float64) for side in sides)
            found[:, rows] += _three(np.vecdot, *piece)
    return found


def in_torch(a: Tensor, b: Tensor) -> Products:
    """Return the products of rows [rows, features] where they are."""
    rows = max(1, _PIECE_IN_TORCH // a.shape[1])
    pieces = zip(a.split(rows), b.split(rows), strict=True)
    found = torch.cat([torch.stack(_three(torch.linalg.vecdot, u.double(), v.double())) for u, v in pieces], -1)
    products: Products = found.cpu().numpy()
    return products


def _three(vecdot: Any, a: Any, b: Any) -> list[Any]:
    return [vecdot(a, a), vecdot(a, b), vecdot(b, b)]
