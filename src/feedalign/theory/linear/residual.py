r"""Deep linear *residual* networks under direct feedback alignment: own feedback at every depth, or shared feedback.

The network is a stream h of width n that every block adds to,

.. math:: h_0 = W_0 x, \qquad h_l = h_{l-1} + W_l h_{l-1} \quad (1 \le l \le L), \qquad \hat y = W_{L+1} h_L.

DFA sends F_l e to h_l, l = 0, ..., L. So W_l moves by −η F_l e h_{l−1}ᵀ, and W_{L+1} by −η e h_Lᵀ.

**Weak alignment.** Let B [n, R] hold the feedback matrices that differ, side by side, so that F_l = B S_l, where S_l
[R, C] picks the columns of F_l. With one shared matrix B = F, S_l = I and R = C. With L + 1 own matrices
B = [F_0 ... F_L] and R = (L + 1) C. From zero weights, exactly and after every step,

.. math:: W_0 = F_0 A_0, \qquad W_l = F_l A_l B^T, \qquad W_{L+1} = A_{L+1} B^T, \qquad h_l = B c_l.

Proof by induction over the steps: h_0 = W_0 x lies in the span of F_0. If h_{l−1} = B c_{l−1} and W_l = F_l A_l Bᵀ,
then h_l = B (c_{l−1} + S_l A_l G c_{l−1}) with G = BᵀB, so that every h_l lies in the span of B. The steps are then
F_l e c_{l−1}ᵀ Bᵀ and e c_Lᵀ Bᵀ, which have the form above. So A_0 [C, n_0] and A_l [C, R] are the whole state:

.. math::
    c_0 = S_0 A_0 x, \quad c_l = c_{l-1} + S_l A_l G c_{l-1}, \quad \hat y = A_{L+1} G c_L, \qquad
    A_0 \mathrel{-}= η e x^T, \quad A_l \mathrel{-}= η e c_{l-1}^T.

With shared feedback these are the C × C matrices of a plain network. With own feedback A_l has a block of C columns for
each matrix below it, so the readout is a *sum* of readouts, W_{L+1} = Σ_k A_{L+1,k} F_kᵀ.

**Gradient alignment.** The true derivative at h_l is δ_l = B d_l, with

.. math:: d_L = A_{L+1}^T e, \qquad d_{l-1} = d_l + A_l^T S_l^T G d_l.

The page on deep linear networks in the documentation says what follows: which layers align under own and under shared
feedback, and what depth does to the conditioning.

Source: ours; the plain network's theory is that of Refinetti et al. (2021), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, finite_array, positive_number, whole_number
from feedalign.errors import ArgumentError, DivergenceError
from feedalign.theory.linear.maps import check_feedback, diverged


@dataclass(frozen=True, eq=False)
class ResidualTraining:
    """A residual linear network at the end of its training.

    Attributes:
        alignment_matrices: A_0 [C, n_0], then A_1 to A_{L+1} [C, R].
        feedback: F_0 to F_L, [n, C].
        basis: B [n, R], the matrices that differ, side by side.
        picks: S_0 to S_L [R, C], with F_l = B S_l.
        losses: ½|ŷ − y|², mean over samples, at the start and after every step, [steps + 1].
    """

    alignment_matrices: list[Array]
    feedback: list[Array]
    basis: Array
    picks: list[Array]
    losses: Array

    def weights(self) -> list[Array]:
        """Return W_0 to W_{L+1}, [out, in] each, from the bottom."""
        first, *blocks, last = self.alignment_matrices
        own = [F @ A @ self.basis.T for F, A in zip(self.feedback[1:], blocks, strict=True)]
        return [self.feedback[0] @ first, *own, last @ self.basis.T]

    def gradient_alignment(self, errors: ArrayLike) -> Array:
        """Return the mean over errors of cos(F_l e, δ_l), l = 0 to L, [L + 1].

        An error for which one of the two signals is zero has no angle, and is left out of the mean. The mean is NaN
        where no error is left.

        Args:
            errors: e, [samples, C].

        Raises:
            ArgumentError: errors have another shape, or hold NaN or infinity.
        """
        e = finite_array("errors", errors, ("samples", len(self.alignment_matrices[0])))
        G = self.basis.T @ self.basis
        found: list[float] = []
        d = e @ self.alignment_matrices[-1]
        for l in range(len(self.feedback) - 1, -1, -1):
            sent = e @ self.picks[l].T
            dots, sizes, lengths = (((u @ G) * v).sum(1) for u, v in ((sent, d), (sent, sent), (d, d)))
            norms = np.sqrt(sizes.clip(0) * lengths.clip(0))
            cosines = dots[norms > 0] / norms[norms > 0]
            found.insert(0, float(cosines.mean()) if cosines.size else np.nan)
            if l > 0:
                d = d + d @ G @ self.picks[l] @ self.alignment_matrices[l]
        return np.array(found)

    def readout_shares(self) -> Array:
        """Return the share of the readout's squared length that lies in the span of F_l, l = 0 to L, [L + 1].

        Where the feedback of the depths is orthogonal, the shares sum to 1. Where it is shared, each share is 1. The
        cosine of W_{L+1}ᵀ e with F_l e, over errors that favour no output, is at most the root of the share.
        """
        readout = self.alignment_matrices[-1] @ self.basis.T
        whole = np.square(readout).sum()
        parts = [np.square(readout @ np.linalg.qr(F)[0]).sum() for F in self.feedback]
        return np.array([part / whole if whole > 0 else np.nan for part in parts])

    def condition_numbers(self) -> Array:
        """Return the condition number of A_0 to A_{L+1}, largest over smallest of C singular values, [L + 2]."""
        return np.array([np.linalg.cond(A) if A.any() else np.nan for A in self.alignment_matrices])


def train_residual(
    x: ArrayLike, y: ArrayLike, *, feedback: Sequence[ArrayLike], lr: float, steps: int
) -> ResidualTraining:
    """Train a residual linear network by full-batch DFA from zero weights, in its alignment matrices.

    The loss is ½|ŷ − y|² *summed* over the samples. Inputs Σ_x^½ and targets Σ_x^½ W̃ᵀ train on a population, as
    `population` does.

    Args:
        x: inputs, [samples, n_0].
        y: targets, [samples, C].
        feedback: F_0 to F_L, [n, C]: of the embedding, then of L ≥ 1 blocks. Equal matrices are one shared matrix:
            `[F] * (L + 1)` is shared feedback, `draw_feedback([n] * (L + 1), C, rng)` is own feedback.
        lr: η.
        steps: steps of gradient descent.

    Raises:
        ArgumentError: shapes do not fit, there are fewer than two feedback matrices or their widths differ, or a number
            is out of range or not finite.
        DivergenceError: the weights left the finite numbers. The error says after how many steps, and has the last
            finite alignment matrices.
    """
    inputs = finite_array("x", x, ("samples", "n_0"))
    targets = finite_array("y", y, (len(inputs), "C"))
    C = targets.shape[1]
    matrices = check_feedback(feedback, C)
    if len(matrices) < 2 or len({len(F) for F in matrices}) > 1:
        raise ArgumentError(
            f"got feedback of widths {[len(F) for F in matrices]}, expected one matrix for the embedding and one for "
            "each block, at least two, all of the one width that the stream has"
        )
    lr, steps = positive_number("lr", lr), whole_number("steps", steps, 1)
    basis, picks = _shared_columns(matrices, C)
    with np.errstate(over="ignore"):  # the first step then diverges, and is refused
        G = basis.T @ basis
    alignment = [np.zeros((C, inputs.shape[1])), *(np.zeros((C, len(G))) for _ in matrices)]
    losses = []
    for step in range(steps + 1):
        with np.errstate(over="ignore", invalid="ignore"):  # a step that diverges is refused below
            codes = [inputs @ alignment[0].T @ picks[0].T]  # c_0 to c_L, [samples, R]
            for A, pick in zip(alignment[1:-1], picks[1:], strict=True):
                codes.append(codes[-1] + codes[-1] @ G @ A.T @ pick.T)
            e = codes[-1] @ G @ alignment[-1].T - targets
            losses.append(float(np.square(e).sum() / 2 / len(e)))
            after = [A - lr * e.T @ below for A, below in zip(alignment, [inputs, *codes], strict=True)]
        if diverged(losses[-1], after):
            raise DivergenceError(f"training diverged after {step} steps; lower lr={lr}", time=step, state=alignment)
        if step < steps:
            alignment = after
    return ResidualTraining(alignment, matrices, basis, picks, np.array(losses))


def _shared_columns(matrices: list[Array], outputs: int) -> tuple[Array, list[Array]]:
    """Return the matrices that differ side by side, B [n, R], and for each one the S_l [R, C] with F_l = B S_l."""
    different: list[Array] = []
    places = []
    for F in matrices:
        same = [i for i, other in enumerate(different) if np.array_equal(F, other)]
        places.append(same[0] if same else len(different))
        different += [] if same else [F]
    columns = np.eye(len(different) * outputs)
    return np.hstack(different), [columns[:, i * outputs : (i + 1) * outputs] for i in places]
