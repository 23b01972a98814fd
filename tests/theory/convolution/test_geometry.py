"""The shape of a convolutional layer: read off a torch module, and which shapes, feedback and kernels are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.cases.geometries import GEOMETRIES, Array, feedback

from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.theory import convolution
from feedalign.theory.convolution import Geometry

BAD: list[tuple[dict[str, Any], str]] = [
    ({"in_shape": (3, 6)}, "in_shape must have 3 whole numbers, got 2"),
    ({"stride": (1, 1, 1)}, "stride must have 2 whole numbers, got 3"),
    ({"in_shape": (3, 0, 6)}, r"in_shape\[1\] must be a whole number of at least 1, got 0"),
    ({"out_channels": 0}, "out_channels must be a whole number of at least 1, got 0"),
    ({"kernel_size": 0}, r"kernel_size\[0\] must be a whole number of at least 1, got 0"),
    ({"stride": 0}, r"stride\[0\] must be a whole number of at least 1, got 0"),
    ({"padding": -1}, r"padding\[0\] must be a whole number of at least 0, got -1"),
    ({"dilation": (1, 0)}, r"dilation\[1\] must be a whole number of at least 1, got 0"),
    ({"groups": 2}, "groups=2 must divide the 3 channels in and 4 out"),
    ({"kernel_size": 7}, "larger than the input"),
    ({"regions": 3}, "must divide the output's height and width"),
]


@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_a_layer_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    shape: dict[str, Any] = {"in_shape": (3, 6, 6), "out_channels": 4, **changed}
    with pytest.raises(ArgumentError, match=message):
        convolution.alignability(np.ones((64, 2)), np.ones((108, 2)), **shape)


@pytest.mark.parametrize(
    ("F_out", "F_in", "error", "message"),
    [
        (
            np.ones((63, 2)),
            np.ones((108, 2)),
            FeedbackShapeError,
            r"F_out has shape \(63, 2\), expected \[64, outputs\]",
        ),
        (np.ones((64, 2)), np.ones(108), FeedbackShapeError, r"F_in has shape \(108,\), expected \[108, outputs\]"),
        (np.zeros((64, 2)), np.ones((108, 2)), ArgumentError, "F_out is zero or not finite"),
        (np.ones((64, 2)), np.full((108, 2), np.nan), ArgumentError, "F_in is zero or not finite"),
    ],
)
def test_feedback_that_does_not_fit_is_refused(F_out: Array, F_in: Array, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        convolution.alignability(F_out, F_in, in_shape=(3, 6, 6), out_channels=4)


def test_a_kernel_of_another_shape_is_refused() -> None:
    geometry = GEOMETRIES[0]
    for call in (lambda k: convolution.inner_products(k, *feedback(geometry), geometry),
                 lambda k: convolution.unrolled(k, geometry)):  # fmt: skip
        with pytest.raises(
            FeedbackShapeError, match=r"the kernel has shape \(4, 3, 3, 2\), expected \(1, 4, 3, 3, 3\)"
        ):
            call(np.ones((4, 3, 3, 2)))


def test_the_shape_of_a_torch_convolution() -> None:
    layer = torch.nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 0), (1, 2), groups=2)
    geometry = Geometry.of(layer, (4, 9, 11))
    assert geometry.out_shape == tuple(layer(torch.zeros(1, 4, 9, 11)).shape[1:])
    same = Geometry.of(torch.nn.Conv2d(4, 6, 3, padding="same", dilation=2), (4, 9, 11))
    assert (same.padding, same.out_shape) == ((2, 2), (6, 9, 11))
    assert Geometry.of(torch.nn.Conv2d(4, 6, 3, padding="valid"), (4, 9, 11)).padding == (0, 0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (torch.nn.Conv2d(4, 6, 4, padding="same"), "pads two sides unequally"),
        (torch.nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), "connects across the border"),
        (torch.nn.Conv2d(3, 6, 3), "must begin with the layer's 3 channels"),
    ],
)
def test_a_torch_convolution_without_such_a_shape_is_refused(layer: torch.nn.Conv2d, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Geometry.of(layer, (4, 9, 11))
