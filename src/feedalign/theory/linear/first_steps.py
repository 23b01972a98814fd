"""The first steps from zero weights: their directions, and the matrix P that makes them even."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, finite_array, number_between
from feedalign.errors import ArgumentError
from feedalign.theory.linear.maps import check_feedback


def first_steps(cov_yx: ArrayLike, feedback: Sequence[ArrayLike], conditioning: ArrayLike | None = None) -> list[Array]:
    r"""Return the directions in which the alignment matrices set out from zero, A_1 to A_L, each of unit norm.

    While e ≈ −y, A_1 ∝ P Σ_yx, A_2 ∝ P Σ_yx Σ_xy Pᵀ, and in general A_l ∝ P Σ_yx c̄_{l−1}ᵀ with the maps
    c̄_l = A_l G_{l−1} c̄_{l−1}. The last layer has no P on its left.

    Args:
        cov_yx: Σ_yx = E[y xᵀ], [C, n_0].
        feedback: F_1 to F_{L−1}, [n_l, C]; one for each hidden layer, at least one.
        conditioning: P [C, C]; the identity unless given.

    Raises:
        ArgumentError: shapes do not fit, a number is not finite, or a layer does not set out in any direction (all of
            Σ_yx, F or P is 0).
    Source: Refinetti et al. (2021), section 3.
    """
    cov = finite_array("cov_yx", cov_yx, ("C", "n_0"))
    C = cov.shape[0]
    P = np.eye(C) if conditioning is None else finite_array("conditioning", conditioning, (C, C))
    matrices = check_feedback(feedback, C)
    directions = [P @ cov]
    code = directions[0]
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, by the norm
        for l, F in enumerate(matrices, start=2):
            A = (P if l <= len(matrices) else np.eye(C)) @ cov @ code.T
            directions.append(A)
            code = A @ F.T @ F @ code
        norms = [float(np.linalg.norm(A)) for A in directions]
    for l, norm in enumerate(norms, start=1):
        if not 0 < norm < np.inf:
            raise ArgumentError(
                f"layer {l} sets out from zero with a step of length {norm:g}; cov_yx, feedback and conditioning must "
                "not be zero, and not be so large that their product overflows"
            )
    return [A / norm for A, norm in zip(directions, norms, strict=True)]


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
