"""Shapes of convolutional layers, and feedback matrices that fit them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from feedalign.theory.convolution import Geometry

Array = NDArray[np.float64]
GEOMETRIES = [
    Geometry((3, 6, 5), 4, padding=(1, 1)),
    Geometry((4, 7, 7), 6, stride=(2, 2), padding=(1, 1), groups=2),
    Geometry((2, 6, 8), 3, kernel_size=(2, 3), padding=(0, 2), dilation=(2, 1)),
    Geometry((2, 5, 5), 3, kernel_size=(5, 5), stride=(3, 1), padding=(2, 2)),
    Geometry((2, 4, 6), 3, padding=(1, 1), regions=(2, 3)),
    Geometry((2, 4, 4), 3, padding=(1, 1), regions=(4, 4)),
    Geometry((4, 4, 4), 4, padding=(1, 1), regions=(4, 2), groups=4),
    Geometry((6, 1, 1), 5, kernel_size=(1, 1)),
]


def feedback(geometry: Geometry, outputs: int = 3, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    sizes = (math.prod(geometry.out_shape), math.prod(geometry.in_shape))
    return rng.standard_normal((sizes[0], outputs)), rng.standard_normal((sizes[1], outputs))


def channelwise(geometry: Geometry, outputs: int = 10, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    shapes = geometry.out_shape, geometry.in_shape
    F_out, F_in = (np.repeat(rng.standard_normal((s[0], outputs)), s[1] * s[2], axis=0) for s in shapes)
    return F_out, F_in
