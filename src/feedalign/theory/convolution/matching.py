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
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh, orth

from feedalign.checks import Array
from feedalign.errors import ArgumentError
from feedalign.geometry import Geometry, Pair
from feedalign.memory import check_memory
from feedalign.theory.convolution.overlaps import feedback_of, nearest_kernel, rows_by_group


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

    The alignability of a dense layer is 1. For random feedback it is about `random_estimate`, and for feedback that is
    constant over the positions of a channel it is `channelwise_estimate`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> F_out, F_in = rng.standard_normal((8 * 16 * 16, 10)), rng.standard_normal((4 * 16 * 16, 10))
    >>> f"{alignability(F_out, F_in, in_shape=(4, 16, 16), out_channels=8, padding=1):.2f}"
    '0.02'

    Args:
        F_out: F_l, [features out, C].
        F_in: F_{l−1}, [features in, C].
        in_shape: (channels, height, width) of the input.
        out_channels: channels of the output.
        kernel_size: of the kernel. Like stride, padding, dilation and regions: one number for both axes, or a pair.
        stride: as in `torch.nn.Conv2d`.
        padding: as in `torch.nn.Conv2d`, with zeros.
        dilation: as in `torch.nn.Conv2d`.
        groups: as in `torch.nn.Conv2d`.
        regions: number of regions that each axis of the output is cut into; every region has a kernel of its own.

    Raises:
        ArgumentError: no layer can have this shape (see `Geometry`), feedback is zero or not finite, or the memory of
            this machine is too small for feedback of this rank: for rank C at both points, C⁴ numbers are needed.
        FeedbackShapeError: feedback has another shape than the layer.
    """
    kernel, step, pad, spread = (_pair(each) for each in (kernel_size, stride, padding, dilation))
    geometry = Geometry(in_shape, out_channels, kernel, step, pad, spread, groups, _pair(regions))
    return _top(*_bases(F_out, F_in, geometry), geometry)[0]


class Match(NamedTuple):
    """The kernel and the alignment matrix that come closest to one another.

    Attributes:
        alignment: the cosine between them, in [0, 1].
        kernel: [regions, o, i, height, width]; the length of the unrolled kernel is the alignment.
        target: F_l A F_{l−1}ᵀ as two factors, [o·p, r] and [i·q, r], whose product has length one.
    """

    alignment: float
    kernel: Array
    target: tuple[Array, Array]


def best_match(F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry) -> Match:
    """Return the kernel that reaches `alignability`, and the product of feedback matrices that it aligns with.

    Args:
        F_out: F_l, [features out, C].
        F_in: F_{l−1}, [features in, C].
        geometry: of the layer.

    Raises:
        ArgumentError: feedback is zero or not finite, or of a rank for which this machine has too little memory.
        FeedbackShapeError: feedback has another shape than the layer.
    """
    U, V = _bases(F_out, F_in, geometry)
    alignment, A = _top(U, V, geometry)
    target = U @ A, V
    return Match(alignment, nearest_kernel(*target, geometry), target)


def _pair(value: Any) -> Any:
    """Return what was given for both axes as two values; `Geometry` checks them."""
    return value if isinstance(value, Sequence | np.ndarray) else (value, value)


def _top(U: Array, V: Array, geometry: Geometry) -> tuple[float, Array]:
    """Return the top singular value of A ↦ (⟨B_τ, U A Vᵀ⟩)_τ and its A, of orthonormal U and V."""
    size = U.shape[1] * V.shape[1]
    check_memory(
        f"the alignability of feedback of rank {U.shape[1]} and {V.shape[1]}: the numbers of a matrix of {size} rows",
        4 * size**2,  # twice, in float64: the decomposition needs a copy
        "give feedback of lower rank, such as feedback.Sketched(32), or see random_estimate",
    )
    gram = np.zeros((size, size))
    for offset in geometry.offsets():
        for pair in rows_by_group(U, V, offset, geometry):
            gram += _gram(*pair)
    squared, vectors = eigh(gram)
    return math.sqrt(min(1.0, max(0.0, squared[-1]))), vectors[:, -1].reshape(U.shape[1], V.shape[1])


def _bases(F_out: ArrayLike, F_in: ArrayLike, geometry: Geometry) -> tuple[Array, Array]:
    """Return orthonormal bases of the columns of both."""
    sides = feedback_of(F_out, F_in, geometry)
    for name, matrix in zip(("F_out", "F_in"), sides, strict=True):
        if not np.isfinite(matrix).all() or not matrix.any():
            raise ArgumentError(f"{name} is zero or not finite, so nothing can align with it")
    return orth(sides[0]), orth(sides[1])


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
