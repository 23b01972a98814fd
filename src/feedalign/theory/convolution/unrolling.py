"""A convolution as the sparse matrix that it is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array

from feedalign.checks import instance_of
from feedalign.geometry import Geometry


def unrolled(kernel: ArrayLike, geometry: Geometry) -> csr_array:
    """Return the sparse matrix [o·p, i·q] of a layer.

    Args:
        kernel: [o, i, height, width] as PyTorch stores it, or [regions, o, i, height, width].
        geometry: of the layer.

    Raises:
        ArgumentError: the kernel is no array of real numbers, or geometry is no `Geometry`.
        FeedbackShapeError: the kernel has another number of weights than the layer.
    """
    instance_of("geometry", geometry, Geometry)
    weights = geometry.kernels(kernel)
    positions = [math.prod(shape[1:]) for shape in (geometry.out_shape, geometry.in_shape)]
    out, into = weights.shape[1:3]
    channel_out, channel_in = np.divmod(np.arange(out * into), into)
    channel_in = channel_in + into * (channel_out // (out // geometry.groups))  # of the group
    entries = []
    for offset in geometry.offsets():
        rows = channel_out[:, None] * positions[0] + offset.outputs
        columns = channel_in[:, None] * positions[1] + offset.inputs
        values = weights[offset.region, :, :, offset.row, offset.column].reshape(-1, 1)
        entries.append([each.ravel() for each in np.broadcast_arrays(values, rows, columns)])
    values, rows, columns = (np.concatenate(each) for each in zip(*entries, strict=True))
    shape = (out * positions[0], geometry.in_shape[0] * positions[1])
    return coo_array((values, (rows, columns)), shape).tocsr()
