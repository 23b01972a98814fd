"""Inner products of pairs against the definition, for whatever size and order in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from feedalign.alignment.inner_products import PIECE, in_numpy, in_torch, inner_products


def written_out(a: Tensor, b: Tensor, batch_dims: int) -> Tensor:
    a, b = (side.double().reshape(*side.shape[:batch_dims], -1) for side in (a, b))
    return torch.stack([(a * a).sum(-1), (a * b).sum(-1), (b * b).sum(-1)])


def draw(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def products(pairs: list[tuple[str, Tensor | None, Tensor | None]], batch_dims: int) -> dict[str, Any]:
    """The products by name; all pairs have the batch of the first."""
    names = list(dict.fromkeys(name for name, *_ in pairs))
    first = next(side for _, *sides in pairs for side in sides if side is not None)
    found = inner_products(pairs, names, first.shape[:batch_dims])
    assert found.shape == (3, len(names) + 1, *first.shape[:batch_dims])
    np.testing.assert_allclose(found[:, -1], found[:, :-1].sum(1), rtol=1e-12, atol=1e-12)
    return {name: found[:, i] for i, name in enumerate(names)}


@given(
    batch=st.lists(st.integers(1, 4), max_size=2),
    features=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=5),
    seed=st.integers(0, 10),
)
def test_small_pairs_of_any_shapes_give_the_definition(batch: list[int], features: list[list[int]], seed: int) -> None:
    pairs = [(str(i), *draw(seed + i, *batch, *shape)) for i, shape in enumerate(features)]
    found = products([*pairs], len(batch))
    for name, a, b in pairs:
        np.testing.assert_allclose(found[name], written_out(a, b, len(batch)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "batch_dims"),
    [
        ((PIECE + 7,), 0),
        ((3, PIECE), 0),
        ((3, PIECE), 1),  # a sample is a piece
        ((2, PIECE + 1), 1),  # larger than one
        ((301, 7, 30), 1),  # a last piece of fewer samples
        ((20, 30, 100), 2),
    ],
)
@pytest.mark.parametrize("transposed", [(), (0,), (1,), (0, 1)])
def test_large_pairs_give_the_definition(shape: tuple[int, ...], batch_dims: int, transposed: tuple[int, ...]) -> None:
    sides = list(draw(0, *shape))
    for i in transposed if len(shape) > 1 else ():
        sides[i] = sides[i].mT.contiguous().mT
    a, b = sides
    found = products([("", a, b)], batch_dims)[""]
    np.testing.assert_allclose(found, written_out(a, b, batch_dims), rtol=1e-11, atol=1e-9)


def test_pairs_of_one_name_add_up() -> None:
    pairs = [
        ("same", *draw(0, 4, 3)),
        ("other", *draw(1, 4, 3)),
        ("same", *draw(2, 4, 7)),
        ("same", *draw(3, 4, PIECE)),
    ]
    found = products([*pairs], 1)
    expected = sum(written_out(a, b, 1) for name, a, b in pairs if name == "same")
    np.testing.assert_allclose(found["same"], expected, rtol=1e-11)
    np.testing.assert_allclose(found["other"], written_out(*pairs[1][1:], 1), rtol=1e-12)


@pytest.mark.parametrize("size", [10, PIECE + 1])
def test_none_stands_for_zeros_and_a_name_without_a_pair_has_them(size: int) -> None:
    a, b = draw(0, 2, size)
    found = inner_products([("a", a, None), ("b", None, b), ("", None, None)], ["b", "other", "a", ""], (2,))
    np.testing.assert_allclose(found[0, 2], (a.double() ** 2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(found[2, 0], (b.double() ** 2).sum(1), rtol=1e-12)
    found[0, 2] = found[2, 0] = 0
    assert not found[:, :-1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(7, 30), (3, 20_011), (9, 8192), (1, 40_000), (9, 2**19 + 1)]
)  # the last in two pieces
def test_rows_are_the_same_in_numpy_and_in_torch(shape: tuple[int, int], dtype: torch.dtype) -> None:
    a, b = (side.to(dtype) for side in draw(0, *shape))
    for rows in (in_numpy, in_torch):
        np.testing.assert_allclose(rows(a, b), written_out(a, b, 1), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("size", [10, PIECE + 1])
def test_squares_below_single_precision_are_not_lost(size: int) -> None:
    a = torch.full((size,), 1e-30)
    np.testing.assert_allclose(products([("", a, -2 * a)], 0)[""], size * np.array([1, -2, 4]) * 1e-60, rtol=1e-6)


@pytest.mark.parametrize("size", [10, PIECE + 1])
@np.errstate(invalid="ignore")
def test_what_is_not_finite_stays_so(size: int) -> None:
    a, b = draw(0, 2, size)
    a[0, 0], a[0, 1], b[0, 0], b[0, 1] = torch.inf, -torch.inf, 1, 1
    found = products([("", a, b), ("", a, -b)], 1)[""]
    assert not np.isfinite(found[:2, 0]).any()
    assert np.isfinite(found[:, 1]).all()
