"""A deep linear network in weak weight alignment, what can be read off its matrices, and how far other weights are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigs

from feedalign.checks import Array, finite_array, sequence
from feedalign.errors import ArgumentError
from feedalign.theory.linear.maps import back, check_feedback, check_matrix, codes, signals

# Up to this many entries of the error map all eigenvalues are computed; beyond, only those at the ends.
_DENSE_EIGENVALUES = 400


@dataclass(frozen=True, eq=False)
class State:
    """A deep linear network in weak weight alignment.

    Attributes:
        alignment_matrices: A_1 [C, n_0], then A_2 to A_L [C, C].
        feedback: F_1 to F_{L−1}, [n_l, C].
        conditioning: P [C, C]: the hidden layers are sent P e instead of the error e. None stands for the identity.

    Raises:
        ArgumentError: a matrix has the wrong shape or holds NaN or infinity, or there is not one alignment matrix more
            than there are feedback matrices.
    """

    alignment_matrices: list[Array]
    feedback: list[Array]
    conditioning: Array | None = None

    def __post_init__(self) -> None:
        given = sequence("alignment_matrices", self.alignment_matrices, "matrices, one for each layer")
        if len(given) < 2:
            raise ArgumentError(
                f"alignment_matrices must hold at least 2 matrices, one for each layer; got {len(given)}"
            )
        matrices = [check_matrix("alignment_matrices[0]", given[0], ("C", "n_0"))]
        C = len(matrices[0])
        matrices += [check_matrix(f"alignment_matrices[{l}]", A, (C, C)) for l, A in enumerate(given[1:], start=1)]
        feedback = check_feedback(self.feedback, C)
        if len(matrices) != len(feedback) + 1:
            raise ArgumentError(
                f"got {len(matrices)} alignment matrices and {len(feedback)} feedback matrices; give one alignment "
                "matrix for each layer, and one feedback matrix for each hidden layer"
            )
        P = None if self.conditioning is None else check_matrix("conditioning", self.conditioning, (C, C))
        for name, value in {"alignment_matrices": matrices, "feedback": feedback, "conditioning": P}.items():
            object.__setattr__(self, name, value)

    @property
    def grams(self) -> list[Array]:
        """G_1 to G_{L−1}, [C, C]; the identity where the columns of F are orthonormal."""
        return [F.T @ F for F in self.feedback]

    def weights(self) -> list[Array]:
        """Return the weights W_1 to W_L, [out, in] each, from the bottom."""
        first, *inner, last = self.alignment_matrices
        pairs = zip(self.feedback[1:], inner, self.feedback[:-1], strict=True)
        return [self.feedback[0] @ first, *(F @ A @ below.T for F, A, below in pairs), last @ self.feedback[-1].T]

    def predict(self, x: ArrayLike) -> Array:
        """Return the outputs ŷ [samples, C] for inputs x [samples, n_0]; ArgumentError for any other x."""
        return codes(self.alignment_matrices, self.grams, self._inputs(x))[-1]

    def weight_alignment(self) -> Array:
        """Return cos(W_l, F_l F_{l−1}ᵀ) for the layers l = 2 to L (for L: with F_{L−1}ᵀ), [L − 1]; NaN at W_l = 0."""
        grams = [*self.grams, np.eye(len(self.alignment_matrices[-1]))]
        cosines = []
        for A, above, below in zip(self.alignment_matrices[1:], grams[1:], grams[:-1], strict=True):
            square = np.trace(A.T @ above @ A @ below)
            norms = math.sqrt(max(square, 0.0) * np.trace(above @ below))
            cosines.append(np.trace(above @ A @ below) / norms if norms > 0 else np.nan)
        return np.array(cosines)

    def gradient_alignment(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Return the mean over samples of cos(δ_l^DFA, δ_l^BP) for the hidden layers l = 1 to L − 1, [L − 1].

        A sample for which one of the two signals is zero has no angle, and is left out of the mean. The mean is NaN
        where no sample is left. DFA's signal is F_l P e, the one that is sent.

        Args:
            x: inputs, [samples, n_0].
            y: targets, [samples, C].

        Raises:
            ArgumentError: x or y has another shape, or holds NaN or infinity.
        """
        inputs = self._inputs(x)
        targets = finite_array("y", y, (len(inputs), self.alignment_matrices[-1].shape[0]))
        cosines = self.cosines(self.predict(inputs) - targets)
        return np.array([np.nanmean(layer) if not np.isnan(layer).all() else np.nan for layer in cosines])

    def cosines(self, errors: ArrayLike) -> Array:
        """Return cos(δ_l^DFA, δ_l^BP) of every error, [L − 1, samples]; NaN where one of the two signals is zero.

        Args:
            errors: e, [samples, C].

        Raises:
            ArgumentError: errors have another shape, or hold NaN or infinity.
        """
        e = finite_array("errors", errors, ("samples", self.alignment_matrices[-1].shape[0]))
        error = e if self.conditioning is None else e @ self.conditioning.T
        found = []
        for F, map_back in zip(self.feedback, signals(self.alignment_matrices, self.feedback), strict=True):
            sent, true = error @ F.T, e @ map_back.T
            norms = np.linalg.norm(sent, axis=1) * np.linalg.norm(true, axis=1)
            found.append(np.divide((sent * true).sum(1), norms, out=np.full(len(e), np.nan), where=norms > 0))
        return np.array(found)

    def predicted_gradient_alignment(self, error_covariance: ArrayLike | None = None) -> Array:
        r"""Return the gradient alignment that A and G alone let one expect, [L − 1].

        .. math:: \frac{\mathrm{tr}(Σ_e M_l^T G_l P)}
            {\sqrt{\mathrm{tr}(Σ_e M_l^T G_l M_l)\, \mathrm{tr}(Σ_e P^T G_l P)}},
            \qquad M_l = A_{l+1}^T G_{l+1} A_{l+2}^T ⋯ A_L^T.

        This is one cosine, of the two signals over a whole ensemble of errors. `gradient_alignment` is the mean of one
        cosine for each sample.

        Args:
            error_covariance: Σ_e [C, C]. The identity unless given: errors that favour no output.

        Raises:
            ArgumentError: Σ_e has another shape, or holds NaN or infinity.
        """
        C = self.alignment_matrices[-1].shape[0]
        S = np.eye(C) if error_covariance is None else finite_array("error_covariance", error_covariance, (C, C))
        P = np.eye(C) if self.conditioning is None else self.conditioning
        predicted = []
        for G, M in zip(self.grams, back(self.alignment_matrices, self.grams), strict=True):
            norms = math.sqrt(max(np.trace(S @ M.T @ G @ M), 0.0) * max(np.trace(S @ P.T @ G @ P), 0.0))
            predicted.append(np.trace(S @ M.T @ G @ P) / norms if norms > 0 else np.nan)
        return np.array(predicted)

    def condition_numbers(self) -> Array:
        """Return the condition number of every A_l, largest over smallest singular value, [L]; 1 is best."""
        return np.array([np.linalg.cond(A) if A.any() else np.nan for A in self.alignment_matrices])

    def stability_limit(self, x: ArrayLike) -> float:
        r"""Return the step size beyond which full-batch training on x leaves a solution with these weights.

        A step changes a small error map E (ŷ − y = E x) into E − η T(E). T is linear while the weights hardly move:

        .. math:: T(E) = \sum_l A_L G_{L-1} ⋯ A_{l+1} G_l\, P\, E\, (\sum x x^T)\, \bar c_{l-1}^T G_{l-1} \bar c_{l-1},

        with :math:`c_{l-1} = \bar c_{l-1} x`, c_0 = x and G_0 = I. Training is stable while |1 − ηλ| ≤ 1 for every
        eigenvalue λ of T. The limit is 0 where an eigenvalue has no positive real part: then no step size is stable.
        All this holds *near a solution*. Far from it small weights allow larger steps, and large errors smaller ones.

        Args:
            x: inputs, [samples, n_0]; the loss is summed over the samples. For a whole population give the rows of
                Σ_x^½.

        Raises:
            ArgumentError: x has another shape, holds NaN or infinity, or no error decays or grows: all x or A are 0.
        """
        inputs = self._inputs(x)
        C, n = self.alignment_matrices[-1].shape[0], inputs.shape[1]
        grams = self.grams
        with np.errstate(over="ignore"):
            covariance = finite_array("the sum of x xᵀ", inputs.T @ inputs)
        P = np.eye(C) if self.conditioning is None else self.conditioning
        forward = [np.eye(n), *codes(self.alignment_matrices, grams, np.eye(n))]  # transposed maps x → c_l
        backward = zip(back(self.alignment_matrices, grams), grams, strict=True)
        sent = [*(M.T @ G @ P for M, G in backward), np.eye(C)]
        right = [covariance @ c @ G @ c.T for c, G in zip(forward, [np.eye(n), *grams], strict=False)]

        def step(flat: Array) -> Array:
            E = flat.reshape(C, n)
            return np.asarray(sum(L @ E @ R for L, R in zip(sent, right, strict=True))).ravel()

        if C * n <= _DENSE_EIGENVALUES:
            values = np.linalg.eigvals(np.stack([step(row) for row in np.eye(C * n)], axis=1))
        else:
            operator = LinearOperator((C * n, C * n), matvec=step, dtype=np.float64)
            ends = [eigs(operator, k=k, which=which, v0=np.ones(C * n), return_eigenvectors=False)
                    for k, which in ((6, "LM"), (1, "SR"))]  # fmt: skip
            values = np.concatenate(ends)
        moving = values[np.abs(values) > 1e-9 * np.abs(values).max()]
        if not moving.size:
            raise ArgumentError("no error moves, so no step size is too large: x or the alignment matrices are all 0")
        return float(max(0.0, (2 * moving.real / np.abs(moving) ** 2).min()))

    def _inputs(self, x: ArrayLike) -> Array:
        return finite_array("x", x, ("samples", self.alignment_matrices[0].shape[1]))


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
        fit = W if above is None else above @ np.linalg.pinv(above) @ W
        fit = fit if below is None else fit @ (below @ np.linalg.pinv(below))
        norm = np.linalg.norm(W)
        found.append(np.linalg.norm(W - fit) / norm if norm > 0 else np.nan)
    return np.array(found)
