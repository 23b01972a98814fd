"""How far given weights are from weak weight alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.checks import finite_array, sequence
from feedalign.errors import ArgumentError
from feedalign.theory.linear.maps import product

Array = NDArray[np.float64]


def residuals(weights: Sequence[ArrayLike], feedback: Sequence[ArrayLike]) -> Array:
    """Return how far weights are from weak weight alignment, |W_l − F_l Â_l F_{l−1}ᵀ| / |W_l| for every layer, [L].

    Â_l is the best fit. The value is 0 for weights that were trained from zero, 1 for weights that have no part along
    the feedback, and NaN for weights that are all 0.

    Args:
        weights: W_1 to W_L, [out, in].
        feedback: F_1 to F_{L−1}, [n_l, C].

    Raises:
        ArgumentError: shapes do not fit, a number is not finite, or there is not one weight more than feedback
            matrices.
    """
    Ws = sequence("weights", weights, "matrices, one for each layer")
    Fs = sequence("feedback", feedback, "matrices, one for each hidden layer")
    if len(Ws) != len(Fs) + 1:
        raise ArgumentError(f"got {len(Ws)} weights and {len(Fs)} feedback matrices, expected one weight more")
    Fs = [finite_array(f"feedback[{l}]", F, ("n", "C")) for l, F in enumerate(Fs)]
    found = []
    for l, (W, above, below) in enumerate(zip(Ws, [*Fs, None], [None, *Fs], strict=True)):
        rows, columns = "out" if above is None else len(above), "in" if below is None else len(below)
        W = finite_array(f"weights[{l}]", W, (rows, columns))
        left = None if above is None else above @ np.linalg.pinv(above)
        right = None if below is None else below @ np.linalg.pinv(below)
        norm = np.linalg.norm(W)
        found.append(np.linalg.norm(W - product(left, W, right)) / norm if norm > 0 else np.nan)
    return np.array(found)
