"""Inner products between a convolution, unrolled, and products of feedback matrices; needs numpy alone.

Nothing of the size of the unrolled matrix is formed. Indices as in `matching`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, instance_of, real_array
from feedalign.errors import FeedbackShapeError
from feedalign.geometry import Geometry, Offset


def inner_products(
    kernel: ArrayLike, F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry
) -> tuple[float, float, float]:
    r"""Return the inner products W·T, W·W and T·T of an unrolled kernel W and T = F_l F_{l−1}ᵀ.

    The cosine of W and T is the weight alignment of the layer. It is never above `alignability`, which is the largest
    cosine for any kernel W and any matrix between F_l and F_{l−1}ᵀ.

    Args:
        kernel: [o, i, height, width] as PyTorch stores it, or [regions, o, i, height, width].
        F_out: F_l, [features out, C].
        F_in: F_{l−1}, [features in, C].
        geometry: of the layer.

    Raises:
        ArgumentError: an argument is no array of real numbers, or geometry is no `Geometry`.
        FeedbackShapeError: kernel or feedback has another shape than the layer.
    """
    F, G = feedback_of(F_out, F_in, geometry)
    if F.shape[1] != G.shape[1]:
        raise FeedbackShapeError(f"F_out has {F.shape[1]} columns and F_in has {G.shape[1]}; give both as many")
    W, nearest, positions = geometry.kernels(kernel), nearest_kernel(F, G, geometry), _positions(geometry)
    along, length = (float(np.einsum("roihw,roihw,rhw->", W, each, positions)) for each in (nearest, W))
    return along, length, float(np.vdot(F.T @ F, G.T @ G))


def channel_products(kernel: ArrayLike, product: ArrayLike, geometry: Geometry) -> tuple[float, float, float]:
    r"""Return what `inner_products` returns where feedback is constant over the positions of each channel.

    Then F_l F_{l−1}ᵀ has one number for each pair of channels, and no feedback matrix is needed.

    Args:
        kernel: [o, i, height, width] as PyTorch stores it, or [regions, o, i, height, width].
        product: F_l F_{l−1}ᵀ at one position of each channel, [channels out, channels in].
        geometry: of the layer.

    Raises:
        ArgumentError: an argument is no array of real numbers, or geometry is no `Geometry`.
        FeedbackShapeError: kernel or product has another shape than the layer.
    """
    instance_of("geometry", geometry, Geometry, "make one with Geometry(...) or Geometry.of(layer, in_shape)")
    P, channels = real_array("product", product), (geometry.out_channels, geometry.in_shape[0])
    if P.shape != channels:
        raise FeedbackShapeError(f"product has shape {P.shape}, expected {channels}, channels out by channels in")
    W, groups = geometry.kernels(kernel), geometry.groups
    # Channels of one group alone are connected: the blocks on the diagonal.
    blocks = P.reshape(groups, channels[0] // groups, groups, channels[1] // groups)
    nearest = np.concatenate([blocks[group, :, group] for group in range(groups)])
    positions = _positions(geometry)
    along = float(np.einsum("roihw,oi,rhw->", W, nearest, positions))
    length = float(np.einsum("roihw,roihw,rhw->", W, W, positions))
    pairs_of_positions = math.prod(geometry.out_shape[1:]) * math.prod(geometry.in_shape[1:])
    return along, length, pairs_of_positions * float(np.vdot(P, P))


def nearest_kernel(left: ArrayLike, right: ArrayLike, geometry: Geometry) -> Array:
    """Return the kernels whose unrolled matrix is nearest to left · rightᵀ: the mean over the positions of each tap.

    Args:
        left: [o·p, r].
        right: [i·q, r].
        geometry: of the layer.

    Returns:
        [regions, o, i, height, width]; a tap that connects nothing is 0.

    Raises:
        ArgumentError: an argument is no matrix of real numbers, or geometry is no `Geometry`.
        FeedbackShapeError: a matrix has another number of rows than the layer has features, or the other matrix has
            another number of columns.
    """
    L, R = feedback_of(left, right, geometry)
    if L.shape[1] != R.shape[1]:
        raise FeedbackShapeError(f"left has {L.shape[1]} columns and right has {R.shape[1]}; give both as many")
    kernel = np.zeros(geometry.kernel_shape)
    for offset in geometry.offsets():
        groups = rows_by_group(L, R, offset, geometry)
        per_group = [np.einsum("opc,ipc->oi", l, r, optimize=True) / l.shape[1] for l, r in groups]
        kernel[offset.region, :, :, offset.row, offset.column] = np.concatenate(per_group)
    return kernel


def feedback_of(F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry) -> tuple[Array, Array]:
    """Return feedback, checked, as two matrices [o·p, c] and [i·q, d]; NaN and infinity may be in them."""
    instance_of("geometry", geometry, Geometry, "make one with Geometry(...) or Geometry.of(layer, in_shape)")
    found = []
    for name, value, shape in (("F_out", F_out, geometry.out_shape), ("F_in", F_in, geometry.in_shape)):
        matrix = real_array(name, value)
        if matrix.ndim != 2 or len(matrix) != math.prod(shape) or not matrix.size:
            raise FeedbackShapeError(
                f"{name} has shape {matrix.shape}, expected [{math.prod(shape)}, outputs], for {shape} channels, "
                "height and width"
            )
        found.append(matrix)
    return found[0], found[1]


def rows_by_group(left: Array, right: Array, offset: Offset, geometry: Geometry) -> Iterator[tuple[Array, Array]]:
    """Return the rows that an offset connects in each group: [o, positions, ·] and [i, positions, ·]."""
    L = left.reshape(geometry.out_channels, -1, left.shape[1])[:, offset.outputs]
    R = right.reshape(geometry.in_shape[0], -1, right.shape[1])[:, offset.inputs]
    return zip(np.split(L, geometry.groups), np.split(R, geometry.groups), strict=True)


def _positions(geometry: Geometry) -> Array:
    """Return how many positions each tap connects, [regions, height, width]."""
    regions, _, _, height, width = geometry.kernel_shape
    counts = np.zeros((regions, height, width))
    for offset in geometry.offsets():
        counts[offset.region, offset.row, offset.column] = len(offset.outputs)
    return counts
