"""What theory expects before training, from the errors and inputs of an untrained network: no step is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from feedalign.alignment import Spectrum, spectrum_of
from feedalign.theory import linear

Array = NDArray[np.float64]

# Single precision leaves a direction without any error this much of one, in singular values.
NOTHING = 1e-5
# A direction this far from the typical one (geometric mean of the eigenvalues) is named, with its outputs.
FAR = 2.0
# Outputs are named until they make up this much of the direction.
SHARE = 0.6
# Two outputs this strongly correlated are named as a pair.
CORRELATED = 0.5
MOST_STEPS = 4000


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen of an untrained network.

    Attributes:
        errors: e = ∂loss/∂output, [samples, C].
        cov_yx: Σ_yx = −E[e₀ xᵀ], [C, n_0], e₀ the error of a silent output: the targets, as far as the loss shows them.
            E[y xᵀ] under half the squared error, E[(y − 1/C) xᵀ] under a cross-entropy.
        isotropic: Σ_yx was made from the errors alone, as of isotropic inputs, since the inputs are no vectors.
    """

    errors: Array
    cov_yx: Array
    isotropic: bool


@dataclass(frozen=True, eq=False)
class Direction:
    """An eigenvector far from the typical one, and the outputs in it.

    Attributes:
        factor: its eigenvalue over the geometric mean of them all; above 1 there is too much of it, below too little.
        outputs: those that make up most of it, the largest first.
        correlation: of the two outputs, if it is a pair of correlated ones; NaN else.
        excess: variance of the first output over the median output's.
    """

    factor: float
    outputs: tuple[int, ...]
    correlation: float
    excess: float


def spectrum(matrix: Array) -> Spectrum:
    """Return the spectrum of a second moment [C, C]."""
    singular = np.sqrt(np.linalg.eigvalsh(matrix)[::-1].clip(0))
    return spectrum_of(torch.from_numpy(singular), NOTHING, squared=True)


def second_moment(errors: Array) -> Array:
    """Return E[e eᵀ], [C, C]."""
    moment: Array = errors.T @ errors / len(errors)
    return moment


def directions(matrix: Array) -> list[Direction]:
    """Return the directions of a second moment that are far from typical: none, the largest, the smallest, or both."""
    values, vectors = np.linalg.eigh(matrix)
    present = values > NOTHING**2 * values[-1]
    values, vectors = values[present], vectors[:, present]
    typical = np.exp(np.log(values).mean())
    variances = np.diag(matrix)
    found = []
    for i in (-1, 0):
        factor = float(values[i] / typical)
        if max(factor, 1 / factor) < FAR:
            continue
        share = vectors[:, i] ** 2
        order = np.argsort(-share)
        named = order[: int(np.argmax(np.cumsum(share[order]) >= SHARE)) + 1]
        correlation = np.nan
        if len(named) == 2:
            a, b = named
            r = matrix[a, b] / np.sqrt(variances[a] * variances[b])
            correlation = float(r) if abs(r) >= CORRELATED else np.nan
        excess = float(variances[named[0]] / np.median(variances))
        found.append(Direction(factor, tuple(int(output) for output in named), correlation, excess))
    return found


def conditioner(errors: Array) -> Array:
    """Return the P that `ConditionedDFA` comes to on these errors, [C, C]: what it sends is white, of their length."""
    moment = second_moment(errors)
    P = linear.conditioner(_root(moment), leave_out=NOTHING)
    scaled: Array = P * np.sqrt(np.trace(moment) / np.trace(P @ moment @ P))
    return scaled


def expected_cosines(seen: Seen, feedback: Sequence[Array], conditioning: Array | None) -> Array:
    """Return cos(δ_DFA, δ_BP) of every error in the first steps of a deep linear net, [hidden layers, samples].

    The net begins at zero weights, has this feedback and learns from these data; its alignment matrices point where
    the first steps lead them, `linear.first_steps`.
    """
    triangles = _triangles(feedback)
    matrices = linear.first_steps(seen.cov_yx, triangles, conditioning)
    return linear.State(matrices, triangles, conditioning).cosines(seen.errors)


def predicted_steps(moment: Array, feedback: Sequence[Array]) -> Array:
    """Return the steps to 1 % of the loss of a deep linear net, [plain, conditioned]; inf where over 4000.

    Inputs are isotropic, outputs have this second moment, scaled to a mean of 1 a direction, and the feedback is the
    net's, scaled to columns of mean square length 1: what the outputs alone, not the inputs, make of the learning time.
    Conditioned, by what `conditioner` finds of such outputs.
    """
    values, vectors = np.linalg.eigh(moment)
    present = values > NOTHING**2 * values[-1]
    values = values[present] / values[present].mean()
    teacher = vectors[:, present] * np.sqrt(values)  # [C, directions]
    scaled = [R / np.sqrt(np.square(R).sum() / R.shape[1]) for R in _triangles(feedback)]
    needed = []
    for P in (None, linear.conditioner(teacher, leave_out=NOTHING)):
        # 0.02 as in the experiment conditioned-feedback; less where one direction is so large that it would diverge.
        lr = 0.02 / values[-1]
        run = linear.population(np.eye(len(values)), teacher, feedback=scaled, lr=lr, steps=MOST_STEPS, conditioning=P)
        below = run.losses < 0.01 * run.losses[0]
        needed.append(float(np.argmax(below)) if below.any() else np.inf)
    return np.array(needed)


def _triangles(feedback: Sequence[Array]) -> list[Array]:
    """Return smaller matrices of the same G = FᵀF, which is all that matters of F."""
    return [np.asarray(np.linalg.qr(F, mode="r")) for F in feedback]


def _root(moment: Array) -> Array:
    values, vectors = np.linalg.eigh(moment)
    root: Array = vectors * np.sqrt(values.clip(0))
    return root
