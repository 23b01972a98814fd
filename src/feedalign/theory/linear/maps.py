"""The products that all of the linear theory is made of: forward to the codes c_l, and back to the signals.

Notation as in the room's front door: A_1 [C, n_0] and A_l [C, C] are the alignment matrices, G_l = F_lᵀ F_l [C, C].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from feedalign.checks import Array, finite_array, sequence
from feedalign.errors import ArgumentError

# Solutions have alignment matrices of size one; products of matrices this large have no correct digits.
_DIVERGED = 1e12


def check_matrix(name: str, value: Any, shape: tuple[int | str, ...]) -> Array:
    """Return a finite float64 matrix; the same object where it already is one, so that states share their feedback."""
    checked = finite_array(name, value, shape)
    return value if type(value) is np.ndarray and value.dtype == np.float64 else checked


def check_feedback(value: Any, outputs: int) -> list[Array]:
    """Return feedback matrices F_1 to F_{L−1} as float64 matrices [n_l, outputs]; ArgumentError where one is not."""
    found = [
        check_matrix(f"feedback[{i}]", F, ("n", outputs))
        for i, F in enumerate(sequence("feedback", value, "matrices, one for each hidden layer"))
    ]
    if not found:
        raise ArgumentError("feedback is empty; give one matrix [features, outputs] for each hidden layer")
    return found


def codes(alignment_matrices: Sequence[Array], grams: Sequence[Array], x: Array) -> list[Array]:
    """Return c_1 to c_L of every sample, [samples, C], for inputs x [samples, n_0]; c_L is the output."""
    found = [x @ alignment_matrices[0].T]
    for A, G in zip(alignment_matrices[1:], grams, strict=True):
        found.append(found[-1] @ (A @ G).T)
    return found


def back(alignment_matrices: Sequence[Array], grams: Sequence[Array]) -> list[Array]:
    """Return M_1 to M_{L−1}, [C, C]: backprop sends layer l the signal δ_l = F_l M_l e."""
    *_, last = alignment_matrices
    found = [last.T]
    for A, G in zip(alignment_matrices[-2:0:-1], grams[:0:-1], strict=True):
        found.insert(0, A.T @ G @ found[0])
    return found


def signals(alignment_matrices: Sequence[Array], feedback: Sequence[Array]) -> list[Array]:
    """Return the maps from the error to the signals of backprop, F_1 M_1 to F_{L−1} M_{L−1}, [n_l, C], see `back`.

    No product of two matrices [C, C] is taken, so that many outputs take little time.
    """
    *_, last = alignment_matrices
    found = [feedback[-1] @ last.T]
    for A, F, above in zip(alignment_matrices[-2:0:-1], feedback[-2::-1], feedback[:0:-1], strict=True):
        found.insert(0, ((F @ A.T) @ above.T) @ found[0])
    return found


def diverged(loss: float, alignment_matrices: Sequence[Array]) -> bool:
    """Return whether training has left the numbers that have correct digits."""
    return not math.isfinite(loss) or not all(np.abs(A).max() < _DIVERGED for A in alignment_matrices)
