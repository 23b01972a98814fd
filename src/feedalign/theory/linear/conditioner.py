"""The matrix P that conditions the error for the hidden layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.checks import finite_array, number_between
from feedalign.errors import ArgumentError

Array = NDArray[np.float64]


def conditioner(cov_yx: ArrayLike, *, leave_out: float | None = None) -> Array:
    r"""Return the matrix that conditions the error for the hidden layers, P = (Σ_yx Σ_xy)^(−½), [C, C].

    From zero the first steps make A_2 ∝ Σ_yx Σ_xy, which is badly conditioned where outputs are correlated or differ
    in size; with P they make A_2 ∝ P Σ_yx Σ_xy Pᵀ = I. P also has a scale, which changes the step size of the hidden
    layers.

    Args:
        cov_yx: Σ_yx = E[y xᵀ], [C, n_0].
        leave_out: singular values up to this share of the largest one, from 0 to below 1, are taken for zero. P sends
            nothing along their directions, for example along (1, ..., 1) of a softmax. Unless given, a Σ_yx that has
            such directions is refused.

    Raises:
        ArgumentError: Σ_yx is no finite matrix, or is zero. Without `leave_out` also: Σ_yx has not full rank C, so that
            an output has nothing to be conditioned by.
    Source: follows from Refinetti et al. (2021), section 3.
    """
    cov = finite_array("cov_yx", cov_yx, ("C", "n_0"))
    if leave_out is not None:
        leave_out = number_between("leave_out", leave_out, 0, 1, ends="[)")
    left, singular, _ = np.linalg.svd(cov, full_matrices=False)
    tolerance = len(singular) * np.finfo(float).eps if leave_out is None else leave_out
    rank = int((singular > tolerance * singular[0]).sum()) if singular[0] > 0 else 0
    if rank < (cov.shape[0] if leave_out is None else 1):
        raise ArgumentError(
            f"cov_yx has rank {rank}, expected that of its {cov.shape[0]} outputs; leave out outputs that are "
            "combinations of other outputs, and outputs that no input tells anything about"
        )
    return (left[:, :rank] / singular[:rank]) @ left[:, :rank].T
