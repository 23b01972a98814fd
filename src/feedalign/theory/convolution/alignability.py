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

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh, orth

from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.geometry import Array, Geometry, Offset, Pair


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
    of a channel `channelwise_estimate`.

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
    return _top(*_bases(F_out, F_in, geometry), geometry)[0]


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
    U, V = _bases(F_out, F_in, geometry)
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
    W, nearest = geometry.kernels(kernel), nearest_kernel(F, G, geometry)
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
    """Return it for feedback constant over the positions of a channel: √(fraction of position pairs connected).

    Exact, and reached by every alignment matrix, if there is one group. With more it is a lower bound, and pairs of
    channels in different groups count as not connected.
    """
    return math.sqrt(geometry.connected / geometry.groups)


def _pair(value: int | Pair) -> Pair:
    return value if isinstance(value, tuple | list) else (value, value)


def _top(U: Array, V: Array, geometry: Geometry) -> tuple[float, Array]:
    """Return the top singular value of A ↦ (⟨B_τ, U A Vᵀ⟩)_τ and its A, of orthonormal U and V."""
    size = U.shape[1] * V.shape[1]
    gram = np.zeros((size, size))
    for offset in geometry.offsets():
        for pair in _grouped(U, V, offset, geometry):
            gram += _gram(*pair)
    squared, vectors = eigh(gram)
    return math.sqrt(min(1.0, max(0.0, squared[-1]))), vectors[:, -1].reshape(U.shape[1], V.shape[1])


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
        found.append(matrix)
    return found[0], found[1]


def _bases(F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry) -> tuple[Array, Array]:
    """Return orthonormal bases of the columns of both."""
    sides = _feedback(F_out, F_in, geometry)
    for name, matrix in zip(("F_out", "F_in"), sides, strict=True):
        if not np.isfinite(matrix).all() or not matrix.any():
            raise ArgumentError(f"{name} is zero or not finite, so nothing can align with it")
    return orth(sides[0]), orth(sides[1])


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
