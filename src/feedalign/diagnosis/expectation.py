"""What can be said before training, from the errors and inputs of an untrained network: no step is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from feedalign.alignment import Spectrum, spectrum_of
from feedalign.checks import Array

# Single precision leaves a direction without any error this much of one, in singular values.
NOTHING = 1e-5
# A direction this far from the typical one (geometric mean of the eigenvalues) is named, with its outputs.
FAR = 2.0
# Outputs are named until they make up this much of the direction.
SHARE = 0.6
# Two outputs this strongly correlated are named as a pair.
CORRELATED = 0.5
MOST_STEPS = 4000
# Steps are counted by training a deep linear net, whose every step multiplies matrices of directions by directions.
# With one hidden layer 200 directions take up to about a minute on one core; 300 were measured at over two minutes.
MOST_WORK = 200**3


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of the outputs in which there is much more, or much less, than in the typical direction.

    Attributes:
        factor: the direction's eigenvalue over the geometric mean of all eigenvalues. Above 1 the network learns this
            direction first, below 1 last.
        outputs: the outputs that make up most of the direction, the largest first.
        correlation: of the two outputs, if the direction is a pair of correlated outputs; NaN otherwise.
        excess: variance of the first output over the variance of the median output.
    """

    factor: float
    outputs: tuple[int, ...]
    correlation: float
    excess: float


@dataclass(frozen=True, eq=False)
class Moment:
    """A second moment of the outputs, such as E[e eᵀ] of the errors; not centred, because no update centres it.

    Attributes:
        matrix: [C, C].
        factor: X [C, n] with X Xᵀ = matrix, if it is known and n < C: with few samples and many outputs that is
            decomposed much more quickly.
    """

    matrix: Array
    factor: Array | None = None

    @classmethod
    def of(cls, factor: Array) -> Moment:
        """Return the moment X Xᵀ of a factor X, [C, n]."""
        return cls(factor @ factor.T, factor if factor.shape[1] < factor.shape[0] else None)

    @cached_property
    def decomposition(self) -> tuple[Array, Array]:
        """Eigenvalues that are not zero, ascending, [directions], and their vectors, [C, directions]."""
        X = self.factor
        values, vectors = np.linalg.eigh(self.matrix if X is None else X.T @ X)
        present = values > NOTHING**2 * values[-1]
        values, vectors = values[present], vectors[:, present]
        return values, vectors if X is None else X @ (vectors / np.sqrt(values))

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigenvalues, rank, condition number and effective rank. Those that are zero to the precision are zero."""
        values, _ = self.decomposition
        singular = np.concatenate([np.sqrt(values)[::-1], np.zeros(len(self.matrix) - len(values))])
        return spectrum_of(torch.from_numpy(singular), NOTHING, squared=True)

    @cached_property
    def directions(self) -> tuple[Direction, ...]:
        """The largest and the smallest direction, each if it is over `FAR` times away from the typical one."""
        values, vectors = self.decomposition
        factors = values / np.exp(np.log(values).mean())
        return tuple(
            self._direction(float(factors[i]), vectors[:, i] ** 2)
            for i in (-1, 0)
            if max(factors[i], 1 / factors[i]) >= FAR
        )

    def _direction(self, factor: float, share: Array) -> Direction:
        variances = np.diag(self.matrix)
        order = np.argsort(-share)
        named = order[: int(np.argmax(np.cumsum(share[order]) >= SHARE)) + 1]
        correlation = np.nan
        if len(named) == 2:
            a, b = named
            r = self.matrix[a, b] / np.sqrt(variances[a] * variances[b])
            correlation = float(r) if abs(r) >= CORRELATED else np.nan
        middle = float(np.median(variances))
        excess = float(variances[named[0]]) / middle if middle > 0 else np.inf
        return Direction(factor, tuple(int(output) for output in named), correlation, excess)


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen of an untrained network."""

    errors: Array  # e = ∂loss/∂output, [samples, C]
    # Σ_yx = −E[e₀ xᵀ], [C, n_0], where e₀ is the error of an output that is zero. Σ_yx is E[y xᵀ] under half the
    # squared error, and E[(y − 1/C) xᵀ] under a cross-entropy.
    cov_yx: Array
    # Whether Σ_yx was made from the errors alone, as if the inputs were isotropic, because the inputs are not vectors
    # of one length.
    isotropic: bool

    @cached_property
    def moment(self) -> Moment:
        """E[e eᵀ]."""
        return Moment.of(self.errors.T / np.sqrt(len(self.errors)))


@dataclass(frozen=True, eq=False)
class Expectation:
    """What theory expects of one kind of feedback.

    Attributes:
        gradient_alignment: in the first steps of a deep linear network, mean over samples, [points].
        by_output: the same, mean over the samples whose error is largest at an output, [points, C]; NaN without any.
        steps: to 1 % of the loss in a deep linear network whose inputs are isotropic; inf if more than 4000. NaN where
            the outputs vary in so many directions that counting the steps would take minutes, see `predicted_steps`.
    """

    gradient_alignment: Array
    by_output: Array
    steps: float


def expectations(seen: Seen, feedback: Sequence[Array]) -> tuple[Array, dict[str, Expectation]]:
    """Return P of `conditioner`, and what theory expects: of "plain" feedback and of feedback "conditioned" by P."""
    P = conditioner(seen.moment)
    needed = predicted_steps(seen.moment, feedback)
    found = {}
    for sent, conditioning, steps in zip(("plain", "conditioned"), (None, P), needed, strict=True):
        cosines = expected_cosines(seen, feedback, conditioning)
        found[sent] = Expectation(mean_of_known(cosines), by_output(cosines, seen.errors), float(steps))
    return P, found


def conditioner(moment: Moment) -> Array:
    """Return the P that `ConditionedDFA` comes to on errors of this moment, [C, C].

    What the rule sends is white, and as long as the errors. This is `theory.linear.conditioner`, written down with the
    decomposition that is known, and scaled.
    """
    values, vectors = moment.decomposition
    # P e is white, with a variance of 1 in each direction before it is scaled.
    root: Array = (vectors / np.sqrt(values / values.mean())) @ vectors.T
    return root


def expected_cosines(seen: Seen, feedback: Sequence[Array], conditioning: Array | None) -> Array:
    """Return cos(δ_DFA, δ_BP) of every error in the first steps of a deep linear net, [points, samples].

    The net begins at zero weights, has this feedback and learns from these data. Its alignment matrices point where
    the first steps lead them, see `linear.first_steps`.
    """
    from feedalign.theory import linear

    triangles = _triangles(feedback)
    matrices = linear.first_steps(seen.cov_yx, triangles, conditioning)
    return linear.State(matrices, triangles, conditioning).cosines(seen.errors)


def predicted_steps(moment: Moment, feedback: Sequence[Array]) -> Array:
    """Return the steps to 1 % of the loss of a deep linear net, [plain, conditioned]; inf where over 4000.

    NaN without any training where that would take minutes: where the cube of the number of directions in which the
    outputs vary, times the number of hidden layers, is above 200³.

    Inputs are isotropic. Outputs have this second moment, scaled to a mean of 1 a direction. The feedback is the net's,
    scaled to columns of mean square length 1. So the answer is what the outputs alone, not the inputs, make of the
    learning time. Conditioned feedback is conditioned by what `conditioner` finds of these outputs.
    """
    from feedalign.theory import linear

    values, vectors = moment.decomposition
    if len(values) ** 3 * len(feedback) > MOST_WORK:
        return np.full(2, np.nan)
    values = values / values.mean()
    teacher = np.diag(np.sqrt(values))  # in the directions: with fewer samples than outputs there are few
    scaled = [(R / np.sqrt(np.square(R).sum() / R.shape[1])) @ vectors for R in _triangles(feedback)]
    needed = []
    for P in (None, linear.conditioner(teacher, leave_out=NOTHING)):
        # 0.02 as in the experiment conditioned-feedback; less where one direction is so large that it would diverge.
        lr = 0.02 / values[-1]
        run = linear.population(np.eye(len(values)), teacher, feedback=scaled, lr=lr, steps=MOST_STEPS, conditioning=P)
        below = run.losses < 0.01 * run.losses[0]
        needed.append(float(np.argmax(below)) if below.any() else np.inf)
    return np.array(needed)


def by_output(cosines: Array, errors: Array) -> Array:
    """Return the mean cosine of the samples whose error is largest at an output, [points, C]; NaN without any.

    The cosines are [points, samples], the errors [samples, C].
    """
    largest = np.abs(errors).argmax(1)
    return np.stack([mean_of_known(cosines[:, largest == output]) for output in range(errors.shape[1])], axis=1)


def mean_of_known(values: Array) -> Array:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is known."""
    with np.errstate(invalid="ignore"):
        mean: Array = np.nansum(values, -1) / (~np.isnan(values)).sum(-1)
    return mean


def _triangles(feedback: Sequence[Array]) -> list[Array]:
    """Return smaller matrices of the same G = FᵀF, which is all that matters of F."""
    return [np.asarray(np.linalg.qr(F, mode="r")) for F in feedback]
