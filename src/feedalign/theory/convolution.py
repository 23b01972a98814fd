r"""How well the weights of a convolution can align with feedback: the alignability of a layer.

DFA needs the weights of layer l along F_l A F_{l−1}ᵀ (weak alignment, see `linear`). Unrolled, a convolution is a
block-Toeplitz matrix, most of its entries zero, the rest tied. So the closest it can come is given by its shape and the
feedback alone: the largest cosine between any kernel, unrolled, and U A Vᵀ for any A, with U and V orthonormal bases of
the columns of F_l and F_{l−1}. With B_τ the normalised indicators of the taps, an orthonormal basis of all unrolled
kernels, that is the top singular value of the linear map A ↦ (⟨B_τ, U A Vᵀ⟩)_τ. Nothing of the size of the unrolled
matrix is formed: the taps of one offset are one product over the positions it connects.

Indices: o, i channels out and in; p, q positions out and in, rows first; c, d outputs of the network. Features are in
the order `flatten()` gives, all positions of channel 0 first: F_l [o·p, c], F_{l−1} [i·q, d].

Source: the question is that of Refinetti et al. (2021), section 5; alignability is this project's answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, orth

from feedalign.errors import ArgumentError, FeedbackShapeError

Array = NDArray[np.float64]
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
        regions: along each axis the output is cut into so many regions, each with a kernel of its own. (1, 1) is a
            convolution; as many as there are positions, a locally connected layer.

    Raises:
        ArgumentError: a size that is not positive (padding: negative), channels that the groups do not divide, an
            output that the regions do not divide, or a kernel larger than the padded input.
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
        sizes = (*self.in_shape, self.out_channels, *self.kernel_size, *self.stride, *self.dilation, self.groups)
        if len(self.in_shape) != 3 or min(*sizes, *self.regions) < 1 or min(self.padding) < 0:
            raise ArgumentError(f"no size may be below 1, nor padding below 0, and in_shape has three; got {self}")
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
        """Return the shape of a `torch.nn.Conv2d`, or of anything with its attributes.

        Args:
            layer: the convolution; told from its attributes, since the theory knows no torch.
            in_shape: (channels, height, width) of its input.
            regions: see `Geometry`.

        Raises:
            ArgumentError: it pads with something else than zeros or by different amounts on two sides, or has not so
                many channels.
        """
        padding = layer.padding
        if isinstance(padding, str):
            spare = [dilation * (size - 1) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
            if padding == "same" and any(each % 2 for each in spare):
                raise ArgumentError(f"padding='same' of a kernel of {layer.kernel_size} pads two sides unequally")
            padding = (spare[0] // 2, spare[1] // 2) if padding == "same" else (0, 0)
        if layer.padding_mode != "zeros":
            raise ArgumentError(f"padding_mode={layer.padding_mode!r} connects across the border; expected 'zeros'")
        if in_shape[0] != layer.in_channels:
            raise ArgumentError(f"in_shape={in_shape} must begin with the layer's {layer.in_channels} channels")
        return cls(
            in_shape,
            layer.out_channels,
            (layer.kernel_size[0], layer.kernel_size[1]),
            (layer.stride[0], layer.stride[1]),
            (padding[0], padding[1]),
            (layer.dilation[0], layer.dilation[1]),
            layer.groups,
            regions,
        )

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the output."""
        height, width = (len(self._reads(axis)) for axis in (0, 1))
        return self.out_channels, height, width

    @property
    def kernel_shape(self) -> tuple[int, int, int, int, int]:
        """[regions, o, i, height, width] of the kernels; i counts the channels of one group."""
        return (
            math.prod(self.regions),
            self.out_channels,
            self.in_shape[0] // self.groups,
            *self.kernel_size,
        )

    @property
    def taps(self) -> int:
        """How many weights there are that connect anything: the dimension of the space of unrolled kernels."""
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

    def _reads(self, axis: int) -> Positions:
        """Return which input position each output position reads at each offset, −1 for padding."""
        size, kernel = self.in_shape[1 + axis], self.kernel_size[axis]
        stride, padding, dilation = self.stride[axis], self.padding[axis], self.dilation[axis]
        positions = max(0, (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
        found = np.arange(positions)[:, None] * stride - padding + np.arange(kernel) * dilation
        return np.where((found >= 0) & (found < size), found, -1)


def alignability(
    F_out: ArrayLike,
    F_in: ArrayLike,
    *,
    in_shape: tuple[int, int, int],
    out_channels: int,
    kernel_size: int | Pair = 3,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    regions: int | Pair = 1,
) -> float:
    r"""Return the largest weight alignment any kernel of a layer can reach, whatever the alignment matrix.

    .. math:: \max_{W, A} \cos(\mathrm{vec}\,\mathrm{unroll}(W), \mathrm{vec}\, F_l A F_{l-1}^T)

    1 for a dense layer. For random feedback about `random_estimate`, for feedback that is constant over the positions
    of a channel about `channelwise_estimate`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> F_out, F_in = rng.standard_normal((8 * 16 * 16, 10)), rng.standard_normal((4 * 16 * 16, 10))
    >>> f"{alignability(F_out, F_in, in_shape=(4, 16, 16), out_channels=8, padding=1):.2f}"
    '0.02'

    Args:
        F_out: F_l, [features out, C].
        F_in: F_{l−1}, [features in, C].
        in_shape: see `Geometry`, as for all that follow.
        out_channels: see `Geometry`.
        kernel_size: see `Geometry`.
        stride: see `Geometry`.
        padding: see `Geometry`.
        dilation: see `Geometry`.
        groups: see `Geometry`.
        regions: see `Geometry`.

    Raises:
        ArgumentError: a layer that cannot be, see `Geometry`, or feedback that is zero or not finite.
        FeedbackShapeError: feedback of another shape than the layer's.
    """
    kernel, step, pad, spread = (_pair(each) for each in (kernel_size, stride, padding, dilation))
    geometry = Geometry(in_shape, out_channels, kernel, step, pad, spread, groups, _pair(regions))
    U, V = map(orth, _feedback(F_out, F_in, geometry))
    return _top(U, V, geometry)[0]


class Match(NamedTuple):
    """The kernel and the alignment matrix that come closest to one another.

    Attributes:
        alignment: the cosine between them, in [0, 1].
        kernel: [regions, o, i, height, width]; unrolled, its length is the alignment.
        target: F_l A F_{l−1}ᵀ as two factors, [o·p, r] and [i·q, r], their product of length one.
    """

    alignment: float
    kernel: Array
    target: tuple[Array, Array]


def best_match(F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry) -> Match:
    """Return the kernel that reaches `alignability`, and what it aligns with there; arguments and errors see there."""
    U, V = map(orth, _feedback(F_out, F_in, geometry))
    alignment, A = _top(U, V, geometry)
    target = U @ A, V
    return Match(alignment, nearest_kernel(*target, geometry), target)


def nearest_kernel(left: ArrayLike, right: ArrayLike, geometry: Geometry) -> Array:
    """Return the kernels whose unrolled matrix is nearest to left · rightᵀ: the mean over the positions of each tap.

    Args:
        left: [o·p, r].
        right: [i·q, r].
        geometry: of the layer.

    Returns:
        [regions, o, i, height, width]; a tap that connects nothing is 0.
    """
    L, R = _feedback(left, right, geometry)
    kernel = np.zeros(geometry.kernel_shape)
    for offset in geometry.offsets():
        per_group = [
            np.einsum("opc,ipc->oi", l, r, optimize=True) / l.shape[1] for l, r in _grouped(L, R, offset, geometry)
        ]
        kernel[offset.region, :, :, offset.row, offset.column] = np.concatenate(per_group)
    return kernel


def inner_products(
    kernel: ArrayLike, F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry
) -> tuple[float, float, float]:
    r"""Return W·T, W·W and T·T of an unrolled kernel W and T = F_l F_{l−1}ᵀ: what their cosine is made of.

    The cosine, the weight alignment of the layer, is never above `alignability`, which may choose W and put any matrix
    between F_l and F_{l−1}ᵀ.

    Args:
        kernel: [o, i, height, width] as PyTorch stores it, or [regions, o, i, height, width].
        F_out: F_l, [features out, C].
        F_in: F_{l−1}, [features in, C].
        geometry: of the layer.

    Raises:
        FeedbackShapeError: kernel or feedback of another shape than the layer's.
    """
    F, G = _feedback(F_out, F_in, geometry)
    W = np.asarray(kernel, dtype=np.float64)
    if W.size != math.prod(geometry.kernel_shape):
        raise FeedbackShapeError(f"the kernel has shape {W.shape}, expected {geometry.kernel_shape}")
    W = W.reshape(geometry.kernel_shape)
    nearest = nearest_kernel(F, G, geometry)
    along, length = (float(np.einsum("roihw,roihw,rhw->", W, each, _positions(geometry))) for each in (nearest, W))
    return along, length, float(np.vdot(F.T @ F, G.T @ G))


def random_estimate(geometry: Geometry, outputs: int) -> float:
    r"""Estimate the alignability of a layer under random feedback from its shape alone.

    .. math:: \sqrt{a(1-b)} + \sqrt{b(1-a)}, \quad a = \frac{\#\mathrm{taps}}{n_l n_{l-1}}, \quad
        b = \frac{C^2}{n_l n_{l-1}}

    and 1 if a + b ≥ 1: the largest cosine between two random subspaces of these dimensions, as they grow. Where both
    are few, as in every convolution of some size, that is (√#taps + C) / √(n_l n_{l−1}).

    Args:
        geometry: of the layer.
        outputs: C.

    Source: Wachter (1980), "The limiting empirical measure of multiple discriminant ratios".
    """
    size = math.prod(geometry.in_shape) * math.prod(geometry.out_shape)
    a, b = geometry.taps / size, outputs**2 / size
    return 1.0 if a + b >= 1 else math.sqrt(a * (1 - b)) + math.sqrt(b * (1 - a))


def channelwise_estimate(geometry: Geometry) -> float:
    """Estimate it for feedback constant over the positions of a channel: √(fraction of position pairs connected).

    Exact if C is at least as large as the channels of both sides; below, too small by what the taps at the border,
    which connect fewer positions, can gain by deviating.
    """
    return math.sqrt(geometry.connected)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value


def _top(U: Array, V: Array, geometry: Geometry) -> tuple[float, Array]:
    """Return the top singular value of A ↦ (⟨B_τ, U A Vᵀ⟩)_τ and its A, of orthonormal U and V."""
    size = U.shape[1] * V.shape[1]
    gram = np.zeros((size, size))
    for offset in geometry.offsets():
        for pair in _grouped(U, V, offset, geometry):
            gram += _gram(*pair)
    (squared,), vectors = eigh(gram, subset_by_index=[size - 1, size - 1])
    return math.sqrt(min(1.0, max(0.0, squared))), vectors.reshape(U.shape[1], V.shape[1])


def _positions(geometry: Geometry) -> Array:
    """Return how many positions each tap connects, [regions, height, width]."""
    regions, _, _, height, width = geometry.kernel_shape
    counts = np.zeros((regions, height, width))
    for offset in geometry.offsets():
        counts[offset.region, offset.row, offset.column] = len(offset.outputs)
    return counts


def _feedback(F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry) -> tuple[Array, Array]:
    """Return both as matrices of the layer's size."""
    found = []
    for name, value, shape in (("F_out", F_out, geometry.out_shape), ("F_in", F_in, geometry.in_shape)):
        matrix = np.asarray(value, dtype=np.float64)
        if matrix.ndim != 2 or len(matrix) != math.prod(shape):
            raise FeedbackShapeError(
                f"{name} has shape {matrix.shape}, expected [{math.prod(shape)}, outputs], for {shape} channels, "
                "height and width"
            )
        if not np.isfinite(matrix).all() or not matrix.any():
            raise ArgumentError(f"{name} is zero or not finite, so nothing can align with it")
        found.append(matrix)
    return found[0], found[1]


def _grouped(left: Array, right: Array, offset: Offset, geometry: Geometry) -> Iterator[tuple[Array, Array]]:
    """Yield the rows that an offset connects in each group: [o, positions, ·] and [i, positions, ·]."""
    sides = [
        matrix.reshape(channels, -1, matrix.shape[1])[:, positions]
        for matrix, channels, positions in (
            (left, geometry.out_channels, offset.outputs),
            (right, geometry.in_shape[0], offset.inputs),
        )
    ]
    yield from zip(*(np.split(side, geometry.groups) for side in sides), strict=True)


def _gram(U: Array, V: Array) -> Array:
    """Return Σ_oi vec(M_oi) vec(M_oi)ᵀ, [c·d, c·d], of the taps M_oi = Σ_p U_op V_ipᵀ / √positions of one offset."""
    (out, positions, c), (into, _, d) = U.shape, V.shape
    if positions**2 > out * into:
        taps = np.tensordot(U, V, ((1,), (1,))).transpose(0, 2, 1, 3).reshape(out * into, c * d)
        return taps.T @ taps / positions
    # Few positions, as in a locally connected layer: sum over the channels first.
    pairs = [np.tensordot(side, side, ((0,), (0,))).transpose(0, 2, 1, 3).reshape(positions**2, -1) for side in (U, V)]
    product = (pairs[0].T @ pairs[1]).reshape(c, c, d, d)
    return product.transpose(0, 2, 1, 3).reshape(c * d, c * d) / positions
