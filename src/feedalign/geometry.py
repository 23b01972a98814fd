"""Shape of a convolution, and which position of its output reads which of its input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.checks import Array, real_array, refused, whole_number, whole_numbers
from feedalign.errors import ArgumentError, FeedbackShapeError

Positions = NDArray[np.intp]
Pair = tuple[int, int]


class Offset(NamedTuple):
    """What one offset of a kernel connects: output position outputs[n] reads input position inputs[n]."""

    region: int
    row: int
    column: int
    outputs: Positions
    inputs: Positions


@dataclass(frozen=True)
class Geometry:
    """Shape of a convolution with zero padding, or of a layer between it and a locally connected one.

    Attributes:
        in_shape: (channels, height, width) of the input.
        out_channels: of the output.
        kernel_size: (height, width) of the kernel.
        stride: as in `torch.nn.Conv2d`, for both axes, like padding and dilation.
        padding: see stride.
        dilation: see stride.
        groups: as in `torch.nn.Conv2d`.
        regions: number of regions that each axis of the output is cut into; every region has a kernel of its own.
            (1, 1) is a convolution. As many regions as positions make a locally connected layer.

    Raises:
        ArgumentError: a size is no whole number of at least 1 (padding: of at least 0), the groups do not divide the
            channels, the regions do not divide the output, or the kernel is larger than the padded input.
    """

    in_shape: tuple[int, int, int]
    out_channels: int
    kernel_size: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    regions: Pair = (1, 1)

    def __post_init__(self) -> None:
        for name in ("out_channels", "groups"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        for name in ("in_shape", "kernel_size", "stride", "padding", "dilation", "regions"):
            least, length = 0 if name == "padding" else 1, 3 if name == "in_shape" else 2
            object.__setattr__(self, name, tuple(whole_numbers(name, getattr(self, name), least, length=length)))
        if self.in_shape[0] % self.groups or self.out_channels % self.groups:
            raise ArgumentError(
                f"groups={self.groups} must divide the {self.in_shape[0]} channels in and {self.out_channels} out"
            )
        if min(self.out_shape) < 1:
            raise ArgumentError(
                f"a kernel of {self.kernel_size} with dilation {self.dilation} is larger than the input "
                f"{self.in_shape[1:]} padded by {self.padding}; pad more, or take a smaller one"
            )
        if any(size % regions for size, regions in zip(self.out_shape[1:], self.regions, strict=True)):
            raise ArgumentError(
                f"regions={self.regions} must divide the output's height and width {self.out_shape[1:]}"
            )

    @classmethod
    def of(cls, layer: Any, in_shape: tuple[int, int, int], regions: Pair = (1, 1)) -> Geometry:
        """Return the shape of a `torch.nn.Conv2d`, or of any object with the attributes of one.

        Args:
            layer: the convolution. Only its attributes are read, since this file knows no torch.
            in_shape: (channels, height, width) of its input.
            regions: number of regions that each axis of the output is cut into; (1, 1) for a convolution.

        Raises:
            ArgumentError: the layer has not the attributes of a convolution over two axes, pads with something else
                than zeros, pads two sides by different amounts, or has another number of channels than in_shape.
        """
        sizes = ("kernel_size", "stride", "dilation")
        needed = ("in_channels", "out_channels", "groups", "padding", "padding_mode", *sizes)
        complete = all(hasattr(layer, name) for name in needed) and not getattr(layer, "transposed", False)
        if not complete or any(len(getattr(layer, name)) != 2 for name in sizes):
            raise refused("layer", "a convolution over two axes, such as torch.nn.Conv2d", layer)
        in_channels = whole_numbers("in_shape", in_shape, 1, length=3)[0]
        padding = layer.padding
        if isinstance(padding, str):
            spare = [dilation * (size - 1) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
            if padding == "same" and any(each % 2 for each in spare):
                raise ArgumentError(f"padding='same' of a kernel of {layer.kernel_size} pads two sides unequally")
            padding = (spare[0] // 2, spare[1] // 2) if padding == "same" else (0, 0)
        if layer.padding_mode != "zeros":
            raise ArgumentError(f"padding_mode={layer.padding_mode!r} connects across the border; expected 'zeros'")
        if in_channels != layer.in_channels:
            raise ArgumentError(f"in_shape={in_shape} must begin with the layer's {layer.in_channels} channels")
        kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
        return cls(in_shape, layer.out_channels, kernel, stride, padding, dilation, layer.groups, regions)

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the output."""
        return self.out_channels, self._positions(0), self._positions(1)

    @property
    def kernel_shape(self) -> tuple[int, int, int, int, int]:
        """[regions, o, i, height, width] of the kernels; i counts the channels of one group."""
        return math.prod(self.regions), self.out_channels, self.in_shape[0] // self.groups, *self.kernel_size

    def kernels(self, kernel: ArrayLike) -> Array:
        """Return a kernel [o, i, height, width], or one for each region, as `kernel_shape`.

        Raises:
            ArgumentError: it is no array of real numbers.
            FeedbackShapeError: it has another number of weights.
        """
        weights = real_array("kernel", kernel)
        if weights.size != math.prod(self.kernel_shape):
            raise FeedbackShapeError(f"the kernel has shape {weights.shape}, expected {self.kernel_shape}")
        return weights.reshape(self.kernel_shape)

    @property
    def taps(self) -> int:
        """Number of weights that connect anything: the dimension of the space of unrolled kernels."""
        return len(list(self.offsets())) * self.out_channels * self.in_shape[0] // self.groups

    @property
    def connected(self) -> float:
        """Fraction of the pairs of an output and an input position that the kernel connects."""
        pairs = sum(len(offset.outputs) for offset in self.offsets())
        return pairs / math.prod((*self.out_shape[1:], *self.in_shape[1:]))

    def offsets(self) -> Iterator[Offset]:
        """Yield every offset of every region that connects anything; offsets of all kernels in row-major order."""
        _, height, width = self.out_shape
        reads = [self._reads(axis) for axis in (0, 1)]  # [positions out, kernel size]: the position in, or -1
        parts = zip((height, width), self.regions, strict=True)
        areas = itertools.product(*(np.split(np.arange(size), regions) for size, regions in parts))
        for region, (rows, columns) in enumerate(areas):
            for row, column in np.ndindex(*self.kernel_size):
                y, x = reads[0][rows, row], reads[1][columns, column]
                outputs = (rows[y >= 0, None] * width + columns[x >= 0]).ravel()
                inputs = (y[y >= 0, None] * self.in_shape[2] + x[x >= 0]).ravel()
                if len(outputs):
                    yield Offset(region, row, column, outputs, inputs)

    def _positions(self, axis: int) -> int:
        """Return the size of the output along an axis; 0 where the kernel is larger than the padded input."""
        spare = self.in_shape[1 + axis] + 2 * self.padding[axis] - self.dilation[axis] * (self.kernel_size[axis] - 1)
        return max(0, (spare - 1) // self.stride[axis] + 1)

    def _reads(self, axis: int) -> Positions:
        """Return the input position that each output position reads at each offset, −1 for padding."""
        size, offsets = self.in_shape[1 + axis], np.arange(self.kernel_size[axis])
        firsts = np.arange(self._positions(axis))[:, None] * self.stride[axis] - self.padding[axis]
        found = firsts + offsets * self.dilation[axis]
        return np.where((found >= 0) & (found < size), found, -1)
