"""The directions in which a network sets out from zero weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.checks import finite_array
from feedalign.errors import ArgumentError
from feedalign.theory.linear.maps import check_feedback

Array = NDArray[np.float64]


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
