r"""Deep linear networks under direct feedback alignment: all of their training in matrices of the size of the output.

From zero weights every step leaves each layer in the form of *weak weight alignment*,

.. math:: W_1 = F_1 A_1, \qquad W_l = F_l A_l F_{l-1}^T, \qquad W_L = A_L F_{L-1}^T,

exactly, for any data, batches and step size. So the alignment matrices A_1 [C, n_0], A_l [C, C] are the whole state,
whatever the widths: with G_l = F_lᵀ F_l, c_1 = A_1 x and c_l = A_l G_{l−1} c_{l−1} the output is c_L, and a step on
½|ŷ − y|², summed over the batch, is

.. math:: A_1 \mathrel{-}= η P e x^T, \qquad A_l \mathrel{-}= η P e c_{l-1}^T, \qquad A_L \mathrel{-}= η e c_{L-1}^T.

P is the identity, or what conditions the error for the hidden layers (`conditioner`).

Source: Refinetti et al. (2021), section 3; conditioned feedback follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator, eigs

from feedalign.errors import ArgumentError, DivergenceError

Array = NDArray[np.float64]

__all__ = [
    "Run",
    "State",
    "conditioner",
    "draw_feedback",
    "first_steps",
    "population",
    "residuals",
    "train",
]


@dataclass(frozen=True, eq=False)
class State:
    """A deep linear network in weak weight alignment.

    Attributes:
        alignment_matrices: A_1 [C, n_0], then A_2 to A_L [C, C].
        feedback: F_1 to F_{L−1}, [n_l, C].
        conditioning: P [C, C], through which the hidden layers are sent the error; None for the error itself.
    """

    alignment_matrices: list[Array]
    feedback: list[Array]
    conditioning: Array | None = None

    @property
    def grams(self) -> list[Array]:
        """G_1 to G_{L−1}, [C, C]; the identity where columns of F are orthonormal."""
        return [F.T @ F for F in self.feedback]

    def weights(self) -> list[Array]:
        """Return the weights themselves, [out, in] each, from the bottom."""
        left = [*self.feedback, None]
        right = [None, *self.feedback]
        matrices = zip(left, self.alignment_matrices, right, strict=True)
        return [_product(F, A, None if below is None else below.T) for F, A, below in matrices]

    def predict(self, x: ArrayLike) -> Array:
        """Return ŷ [samples, C] for x [samples, n_0]."""
        return self._codes(np.asarray(x, dtype=np.float64))[-1]

    def weight_alignment(self) -> Array:
        """Return cos(W_l, F_l F_{l−1}ᵀ) for the layers l = 2 to L (for L: with F_{L−1}ᵀ), [L − 1]; NaN at W_l = 0."""
        identity = np.eye(self.alignment_matrices[-1].shape[0])
        grams = [*self.grams, identity]
        cosines = []
        for A, above, below in zip(self.alignment_matrices[1:], grams[1:], grams[:-1], strict=True):
            square = np.trace(A.T @ above @ A @ below)
            norms = math.sqrt(max(square, 0.0) * np.trace(above @ below))
            cosines.append(np.trace(above @ A @ below) / norms if norms > 0 else np.nan)
        return np.array(cosines)

    def gradient_alignment(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Return the mean over samples of cos(δ_l^DFA, δ_l^BP) for the hidden layers l = 1 to L − 1, [L − 1].

        Samples in which one of the two is zero have no angle and are left out; NaN where none has. DFA's signal is the
        one that is sent, F_l P e.

        Args:
            x: inputs, [samples, n_0].
            y: targets, [samples, C].
        """
        inputs, targets = _samples(x, y)
        cosines = self.cosines(self.predict(inputs) - targets)
        return np.array([np.nanmean(layer) if not np.isnan(layer).all() else np.nan for layer in cosines])

    def cosines(self, errors: ArrayLike) -> Array:
        """Return cos(δ_l^DFA, δ_l^BP) of every error, [L − 1, samples]; NaN where one of the two is zero.

        Args:
            errors: e, [samples, C].
        """
        e = _matrix("errors", errors, None, self.alignment_matrices[-1].shape[0])
        sent = e if self.conditioning is None else e @ self.conditioning.T
        found = []
        for G, M in zip(self.grams, self._back(), strict=True):
            true = e @ M.T  # δ = F_l M e
            dots = ((sent @ G) * true).sum(1)
            norms = np.sqrt(((sent @ G) * sent).sum(1).clip(0)) * np.sqrt(((true @ G) * true).sum(1).clip(0))
            found.append(np.divide(dots, norms, out=np.full(len(e), np.nan), where=norms > 0))
        return np.array(found)

    def predicted_gradient_alignment(self, error_covariance: ArrayLike | None = None) -> Array:
        r"""Return what gradient alignment is to be expected from A and G alone, [L − 1].

        .. math:: \frac{\mathrm{tr}(Σ_e M_l^T G_l P)}
            {\sqrt{\mathrm{tr}(Σ_e M_l^T G_l M_l)\, \mathrm{tr}(Σ_e P^T G_l P)}},
            \qquad M_l = A_{l+1}^T G_{l+1} A_{l+2}^T ⋯ A_L^T,

        the cosine of the two signals over a whole ensemble of errors, where the mean over samples has one for each.

        Args:
            error_covariance: Σ_e [C, C]; the identity, errors that favour no output, unless given.
        """
        C = self.alignment_matrices[-1].shape[0]
        S = np.eye(C) if error_covariance is None else _matrix("error_covariance", error_covariance, C, C)
        P = np.eye(C) if self.conditioning is None else self.conditioning
        predicted = []
        for G, M in zip(self.grams, self._back(), strict=True):
            norms = math.sqrt(max(np.trace(S @ M.T @ G @ M), 0.0) * np.trace(S @ P.T @ G @ P))
            predicted.append(np.trace(S @ M.T @ G @ P) / norms if norms > 0 else np.nan)
        return np.array(predicted)

    def condition_numbers(self) -> Array:
        """Return the condition number of every A_l, largest over smallest singular value, [L]; 1 is best."""
        return np.array([np.linalg.cond(A) if A.any() else np.nan for A in self.alignment_matrices])

    def stability_limit(self, x: ArrayLike) -> float:
        r"""Return the step size beyond which full-batch training on x leaves a solution with these weights.

        A small error map E (ŷ − y = E x) changes in a step as E − η T(E), T being linear while the weights hardly move:

        .. math:: T(E) = \sum_l A_L G_{L-1} ⋯ A_{l+1} G_l\, P\, E\, (\sum x x^T)\, \bar c_{l-1}^T G_{l-1} \bar c_{l-1},

        with :math:`c_{l-1} = \bar c_{l-1} x`, c_0 = x and G_0 = I. The limit is that of |1 − ηλ| ≤ 1 for the
        eigenvalues λ of T; 0 where one of them has no positive real part, so that no step size is stable. It is a limit
        *near a solution*: far from it, weights that are small at first allow more, and errors that are large less.

        Args:
            x: inputs, [samples, n_0]; the loss is summed over them. For the population, rows of Σ_x^½.
        """
        inputs = _matrix("x", x, None, self.alignment_matrices[0].shape[1])
        C, n = self.alignment_matrices[-1].shape[0], inputs.shape[1]
        covariance, P = inputs.T @ inputs, np.eye(C) if self.conditioning is None else self.conditioning
        codes = [np.eye(n), *self._codes(np.eye(n))]  # transposed maps x → c_l
        back = [*(M.T @ G for M, G in zip(self._back(), self.grams, strict=True)), np.eye(C)]
        sent = [*(L @ P for L in back[:-1]), np.eye(C)]
        right = [covariance @ c @ G @ c.T for c, G in zip(codes, [np.eye(n), *self.grams], strict=False)]

        def step(flat: Array) -> Array:
            E = flat.reshape(C, n)
            return np.asarray(sum(L @ E @ R for L, R in zip(sent, right, strict=True))).ravel()

        if C * n <= 400:
            values = np.linalg.eigvals(np.stack([step(row) for row in np.eye(C * n)], axis=1))
        else:
            operator = LinearOperator((C * n, C * n), matvec=step, dtype=np.float64)
            ends = [eigs(operator, k=k, which=which, v0=np.ones(C * n), return_eigenvectors=False)
                    for k, which in ((6, "LM"), (1, "SR"))]  # fmt: skip
            values = np.concatenate(ends)
        moving = values[np.abs(values) > 1e-9 * np.abs(values).max()]
        return float(max(0.0, (2 * moving.real / np.abs(moving) ** 2).min()))

    def _codes(self, x: Array) -> list[Array]:
        """Return c_1 to c_L of every sample, [samples, C]."""
        codes = [x @ self.alignment_matrices[0].T]
        for A, G in zip(self.alignment_matrices[1:], self.grams, strict=True):
            codes.append(codes[-1] @ (A @ G).T)
        return codes

    def _back(self) -> list[Array]:
        """Return M_1 to M_{L−1}, with δ_l = F_l M_l e under backprop."""
        *_, last = self.alignment_matrices
        back = [last.T]
        for A, G in zip(self.alignment_matrices[-2:0:-1], self.grams[:0:-1], strict=True):
            back.insert(0, A.T @ G @ back[0])
        return back


@dataclass(frozen=True, eq=False)
class Run(State):
    """A network at the end of its training, and its way there.

    Attributes:
        losses: ½|ŷ − y|², mean over samples, at the start and after every epoch, [epochs + 1].
        recorded: epochs of which the state was kept.
        states: those states.
    """

    losses: Array = None  # type: ignore[assignment]  # always given; after fields with a default
    recorded: tuple[int, ...] = ()
    states: tuple[State, ...] = ()


def train(
    x: ArrayLike,
    y: ArrayLike,
    *,
    feedback: Sequence[ArrayLike],
    lr: float,
    epochs: int,
    batch_size: int | None = None,
    shuffle_seed: int | None = None,
    conditioning: ArrayLike | None = None,
    record: Sequence[int] = (),
) -> Run:
    """Train a deep linear network by DFA from zero weights, in its alignment matrices.

    The loss is ½|ŷ − y|² *summed* over the batch, so a step grows with the batch; divide lr by it for a mean.

    Args:
        x: inputs, [samples, n_0].
        y: targets, [samples, C].
        feedback: F_1 to F_{L−1}, [n_l, C]; as many as hidden layers, at least one.
        lr: η.
        epochs: passes through the data.
        batch_size: samples a step, the last of an epoch takes what is left; all unless given.
        shuffle_seed: order of the samples, anew every epoch; in the given order unless given.
        conditioning: P [C, C]: hidden layers are sent F_l P e, the readout keeps e.
        record: epochs of which to keep the state, 0 for the start.

    Raises:
        ArgumentError: shapes do not fit, or a number is out of range or not finite.
        DivergenceError: the weights left the finite numbers; says after how many steps, and keeps the last finite
            state.
    Source: Refinetti et al. (2021), section 3.
    """
    inputs, targets = _samples(x, y)
    (samples, n), C = inputs.shape, targets.shape[1]
    matrices = [_matrix(f"feedback[{i}]", F, None, C) for i, F in enumerate(feedback)]
    if not matrices:
        raise ArgumentError("feedback is empty; give one matrix [features, outputs] for each hidden layer")
    if not (math.isfinite(lr) and lr > 0):
        raise ArgumentError(f"lr={lr} must be a positive number")
    size = samples if batch_size is None else batch_size
    for name, value in {"epochs": epochs, "batch_size": size}.items():
        if not (value >= 1 and value % 1 == 0):
            raise ArgumentError(f"{name}={value} must be a whole number of at least 1")
    if wrong := [epoch for epoch in record if not 0 <= epoch <= epochs]:
        raise ArgumentError(f"record={wrong[0]} is no epoch of the run; expected 0 to {epochs}")
    P = None if conditioning is None else _matrix("conditioning", conditioning, C, C)
    state = State([np.zeros((C, n)), *(np.zeros((C, C)) for _ in matrices)], matrices, P)
    losses, states = [], {}
    rng = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
    steps = 0
    for epoch in range(epochs + 1):
        losses.append(float(np.square(state.predict(inputs) - targets).sum() / 2 / samples))
        if epoch in record:
            states[epoch] = state
        if epoch == epochs:
            break
        order = np.arange(samples) if rng is None else rng.permutation(samples)
        for begin in range(0, samples, size):
            batch = order[begin : begin + size]
            after = _step(state, inputs[batch], targets[batch], lr)
            if not all(np.abs(A).max() < 1e12 for A in after.alignment_matrices):
                raise DivergenceError(
                    f"training diverged after {steps} steps; lower lr={lr}, of which stability_limit tells the most "
                    "that a solution bears",
                    time=steps,
                    state=state,
                )
            state, steps = after, steps + 1
    return Run(
        state.alignment_matrices, matrices, P, np.array(losses), tuple(sorted(states)),
        tuple(states[epoch] for epoch in sorted(states)),
    )  # fmt: skip


def population(
    cov_x: ArrayLike,
    teacher: ArrayLike,
    *,
    feedback: Sequence[ArrayLike],
    lr: float,
    steps: int,
    noise_std: float = 0.0,
    conditioning: ArrayLike | None = None,
    record: Sequence[int] = (),
) -> Run:
    r"""Train on a whole population of inputs, gradient descent on the expected loss.

    Inputs have covariance Σ_x, targets are W̃ x + σ ζ. With E the map of the noiseless error, A_l moves by
    :math:`-η P E Σ_x \bar c_{l-1}^T`. Noise has no mean and so moves nothing; it adds ½ C σ² to the losses.

    Args:
        cov_x: Σ_x [n_0, n_0].
        teacher: W̃ [C, n_0].
        feedback: F_1 to F_{L−1}, [n_l, C].
        lr: η.
        steps: of gradient descent.
        noise_std: σ.
        conditioning: P [C, C], see `train`.
        record: steps of which to keep the state.

    Returns:
        As `train`, an epoch being a step; losses are expectations of ½|ŷ − y|².

    Raises:
        ArgumentError: as `train`; Σ_x is no covariance; σ is negative.
        DivergenceError: as `train`.
    """
    W = _matrix("teacher", teacher, None, None)
    covariance = _matrix("cov_x", cov_x, W.shape[1], W.shape[1])
    eigenvalues, vectors = np.linalg.eigh(covariance)
    if not np.allclose(covariance, covariance.T) or eigenvalues[0] < -1e-10 * max(1.0, eigenvalues[-1]):
        raise ArgumentError("cov_x must be symmetric and positive semi-definite, as a covariance is")
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise ArgumentError(f"noise_std={noise_std} must be a number that is not negative")
    # n_0 inputs whose Σ x xᵀ is Σ_x: a sum over them is the expectation over the population.
    x = np.sqrt(eigenvalues.clip(0))[:, None] * vectors.T
    run = train(x, x @ W.T, feedback=feedback, lr=lr, epochs=steps, conditioning=conditioning, record=record)
    losses = run.losses * len(x) + W.shape[0] * noise_std**2 / 2
    return Run(run.alignment_matrices, run.feedback, run.conditioning, losses, run.recorded, run.states)


def conditioner(cov_yx: ArrayLike, *, leave_out: float | None = None) -> Array:
    r"""Return what conditions the error for the hidden layers, P = (Σ_yx Σ_xy)^(−½), [C, C].

    From zero the first steps make A_2 ∝ Σ_yx Σ_xy, which is badly conditioned where outputs are correlated or differ
    in size; with P they make A_2 ∝ P Σ_yx Σ_xy Pᵀ = I. P has a scale too, and with it changes the step size of the
    hidden layers.

    Args:
        cov_yx: Σ_yx = E[y xᵀ], [C, n_0].
        leave_out: singular values up to this share of the largest are taken for zero, and P sends nothing along their
            directions, as along (1, ..., 1) of a softmax; refused unless given.

    Raises:
        ArgumentError: Σ_yx is no finite matrix, or zero, or (without `leave_out`) has not full rank C, so that an
            output has nothing to be conditioned by.
    Source: follows from Refinetti et al. (2021), section 3.
    """
    cov = _matrix("cov_yx", cov_yx, None, None)
    left, singular, _ = np.linalg.svd(cov, full_matrices=False)
    tolerance = len(singular) * np.finfo(float).eps if leave_out is None else leave_out
    rank = int((singular > tolerance * singular[0]).sum()) if singular[0] > 0 else 0
    if rank < (cov.shape[0] if leave_out is None else 1):
        raise ArgumentError(
            f"cov_yx has rank {rank}, expected that of its {cov.shape[0]} outputs; leave out outputs that are "
            "combinations of others, or that no input tells anything of"
        )
    return (left[:, :rank] / singular[:rank]) @ left[:, :rank].T


def first_steps(cov_yx: ArrayLike, feedback: Sequence[ArrayLike], conditioning: ArrayLike | None = None) -> list[Array]:
    r"""Return the directions in which the alignment matrices set out from zero, each of unit norm.

    While e ≈ −y, A_1 ∝ P Σ_yx, A_2 ∝ P Σ_yx Σ_xy Pᵀ, and in general A_l ∝ P Σ_yx c̄_{l−1}ᵀ with the maps
    c̄_l = A_l G_{l−1} c̄_{l−1}; the last layer without the P to the left.

    Args:
        cov_yx: Σ_yx = E[y xᵀ], [C, n_0].
        feedback: F_1 to F_{L−1}, [n_l, C].
        conditioning: P [C, C].

    Source: Refinetti et al. (2021), section 3.
    """
    cov = _matrix("cov_yx", cov_yx, None, None)
    C = cov.shape[0]
    P = np.eye(C) if conditioning is None else _matrix("conditioning", conditioning, C, C)
    matrices = [_matrix(f"feedback[{i}]", F, None, C) for i, F in enumerate(feedback)]
    directions = [P @ cov]
    code = directions[0]
    for l, F in enumerate(matrices, start=2):
        A = (P if l <= len(matrices) else np.eye(C)) @ cov @ code.T
        directions.append(A)
        code = A @ F.T @ F @ code
    return [A / np.linalg.norm(A) for A in directions]


def residuals(weights: Sequence[ArrayLike], feedback: Sequence[ArrayLike]) -> Array:
    """Return how far weights are from weak weight alignment, |W_l − F_l Â_l F_{l−1}ᵀ| / |W_l| for every layer, [L].

    Â_l is the best fit. 0 for weights that were trained from zero, 1 where nothing of them lies along the feedback.

    Args:
        weights: W_1 to W_L, [out, in].
        feedback: F_1 to F_{L−1}, [n_l, C].
    """
    if len(weights) != len(feedback) + 1:
        raise ArgumentError(
            f"got {len(weights)} weights and {len(feedback)} feedback matrices, expected one weight more"
        )
    Fs = [np.asarray(F, dtype=np.float64) for F in feedback]
    found = []
    for W, above, below in zip(map(np.asarray, weights), [*Fs, None], [None, *Fs], strict=True):
        left = None if above is None else above @ np.linalg.pinv(above)
        right = None if below is None else below @ np.linalg.pinv(below)
        found.append(np.linalg.norm(W - _product(left, W, right)) / np.linalg.norm(W))
    return np.array(found)


def draw_feedback(
    widths: Sequence[int], outputs: int, rng: np.random.Generator, kind: Literal["gaussian", "orthonormal"] = "gaussian"
) -> list[Array]:
    """Return random feedback matrices [n_l, C], one for each hidden width.

    Args:
        widths: n_1 to n_{L−1}.
        outputs: C.
        rng: where random numbers come from.
        kind: "gaussian" has entries N(0, 1/n_l), so that G_l is the identity up to fluctuations of 1/√n_l;
            "orthonormal" has orthonormal columns, G_l = I, and needs n_l ≥ C.
    """
    if kind not in ("gaussian", "orthonormal"):
        raise ArgumentError(f"kind={kind!r} is unknown; expected 'gaussian' or 'orthonormal'")
    if kind == "orthonormal" and min(widths) < outputs:
        raise ArgumentError(f"{outputs} orthonormal columns need widths of at least {outputs}, got {min(widths)}")
    drawn = [rng.standard_normal((n, outputs)) / math.sqrt(n) for n in widths]
    return drawn if kind == "gaussian" else [np.linalg.qr(F)[0] for F in drawn]


def _step(state: State, x: Array, y: Array, lr: float) -> State:
    """Return the state after one step on a batch."""
    codes = [x, *state._codes(x)]
    e = codes[-1] - y
    sent = e if state.conditioning is None else e @ state.conditioning.T
    *hidden, last = state.alignment_matrices
    moved = [A - lr * sent.T @ below for A, below in zip(hidden, codes, strict=False)]
    return State([*moved, last - lr * e.T @ codes[-2]], state.feedback, state.conditioning)


def _product(left: Array | None, middle: Array, right: Array | None) -> Array:
    product = middle if left is None else left @ middle
    return product if right is None else product @ right


def _samples(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    inputs = _matrix("x", x, None, None)
    return inputs, _matrix("y", y, len(inputs), None)


def _matrix(name: str, value: ArrayLike, rows: int | None, columns: int | None) -> Array:
    """Return a finite matrix of this shape, None for any."""
    matrix = np.asarray(value, dtype=np.float64)
    fits = matrix.ndim == 2 and matrix.size and all(
        want is None or have == want for have, want in zip(matrix.shape, (rows, columns), strict=True)
    )  # fmt: skip
    if not fits:
        shape = ", ".join("·" if size is None else str(size) for size in (rows, columns))
        raise ArgumentError(f"{name} must be a matrix [{shape}], got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ArgumentError(f"{name} has entries that are not finite")
    return matrix
