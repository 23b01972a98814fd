"""Training a deep linear network by DFA from zero weights, in its alignment matrices: on samples, or a population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, finite_array, number_at_least, positive_number, whole_number, whole_numbers
from feedalign.errors import ArgumentError, DivergenceError
from feedalign.streams import numpy_generator
from feedalign.theory.linear.maps import check_feedback, codes, diverged
from feedalign.theory.linear.state import State


@dataclass(frozen=True, eq=False)
class Training(State):
    """A network at the end of its training, and its way there.

    Attributes:
        losses: ½|ŷ − y|², mean over samples, at the start and after every epoch, [epochs + 1].
        recorded: epochs whose state was kept.
        states: those states.
    """

    losses: Array = field(kw_only=True)
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
) -> Training:
    """Train a deep linear network by DFA from zero weights, in its alignment matrices.

    The loss is ½|ŷ − y|² *summed* over the batch, so a step grows with the batch. For a mean, divide lr by batch_size.

    Args:
        x: inputs, [samples, n_0].
        y: targets, [samples, C].
        feedback: F_1 to F_{L−1}, [n_l, C]; one for each hidden layer, at least one.
        lr: η.
        epochs: passes through the data.
        batch_size: samples a step; the last step of an epoch takes the samples that are left. All samples unless given.
        shuffle_seed: seed of the order of the samples, which is drawn anew for every epoch. The given order unless
            given.
        conditioning: P [C, C]: hidden layers are sent F_l P e, the readout keeps e.
        record: epochs whose state is kept; 0 is the start.

    Raises:
        ArgumentError: shapes do not fit, or a number is out of range or not finite.
        DivergenceError: the weights left the finite numbers. The error says after how many steps, and has the last
            finite state.
    Source: Refinetti et al. (2021), section 3.
    """
    inputs = finite_array("x", x, ("samples", "n_0"))
    samples, n = inputs.shape
    targets = finite_array("y", y, (samples, "C"))
    C = targets.shape[1]
    matrices = check_feedback(feedback, C)
    lr = positive_number("lr", lr)
    epochs = whole_number("epochs", epochs, 1)
    size = samples if batch_size is None else whole_number("batch_size", batch_size, 1)
    kept = whole_numbers("record", record)
    if wrong := [epoch for epoch in kept if not 0 <= epoch <= epochs]:
        raise ArgumentError(f"record={wrong[0]} is no epoch of the training; expected 0 to {epochs}")
    P = None if conditioning is None else finite_array("conditioning", conditioning, (C, C))
    rng = None if shuffle_seed is None else numpy_generator(whole_number("shuffle_seed", shuffle_seed, 0), "order")
    zero = State([np.zeros((C, n)), *(np.zeros((C, C)) for _ in matrices)], matrices, P)
    return _trained(zero, inputs, targets, lr, epochs, size, rng, kept)


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
) -> Training:
    r"""Train on a whole population of inputs: gradient descent on the expected loss.

    Inputs have covariance Σ_x, targets are W̃ x + σ ζ. With E the map from x to the noiseless error, A_l moves by
    :math:`-η P E Σ_x \bar c_{l-1}^T`. The noise has mean zero, so it moves nothing; it adds ½ C σ² to the losses.

    Args:
        cov_x: Σ_x [n_0, n_0].
        teacher: W̃ [C, n_0].
        feedback: F_1 to F_{L−1}, [n_l, C]; one for each hidden layer, at least one.
        lr: η.
        steps: number of steps of gradient descent.
        noise_std: σ.
        conditioning: P [C, C]: hidden layers are sent F_l P e, the readout keeps e.
        record: steps whose state is kept; 0 is the start.

    Returns:
        What `train` returns, with steps in place of epochs; losses are expectations of ½|ŷ − y|².

    Raises:
        ArgumentError: shapes do not fit, a number is out of range or not finite, or Σ_x is no covariance.
        DivergenceError: the weights left the finite numbers. The error says after how many steps, and has the last
            finite state.
    """
    W = finite_array("teacher", teacher, ("C", "n_0"))
    covariance = finite_array("cov_x", cov_x, (W.shape[1], W.shape[1]))
    eigenvalues, vectors = np.linalg.eigh(covariance)
    if not np.allclose(covariance, covariance.T) or eigenvalues[0] < -1e-10 * max(1.0, eigenvalues[-1]):
        raise ArgumentError("cov_x must be symmetric and positive semi-definite, as a covariance is")
    noise_std = number_at_least("noise_std", noise_std, 0)
    steps = whole_number("steps", steps, 1)
    # n_0 inputs whose Σ x xᵀ is Σ_x: a sum over them is the expectation over the population.
    x = np.sqrt(eigenvalues.clip(0))[:, None] * vectors.T
    found = train(x, x @ W.T, feedback=feedback, lr=lr, epochs=steps, conditioning=conditioning, record=record)
    return replace(found, losses=found.losses * len(x) + W.shape[0] * (noise_std * noise_std) / 2)


def _trained(
    net: State,
    x: Array,
    y: Array,
    lr: float,
    epochs: int,
    size: int,
    rng: np.random.Generator | None,
    kept: Sequence[int],
) -> Training:
    """Return a net after these epochs of batches of one size, in the given order unless there is a generator."""
    alignment, grams, P = net.alignment_matrices, net.grams, net.conditioning
    losses, steps = [_loss(alignment, grams, x, y)], 0
    states = {0: net} if 0 in kept else {}
    for epoch in range(1, epochs + 1):
        order = np.arange(len(x)) if rng is None else rng.permutation(len(x))
        for begin in range(0, len(x), size):
            batch = order[begin : begin + size]
            after = _step(alignment, grams, P, x[batch], y[batch], lr)
            if diverged(losses[-1], after):
                raise DivergenceError(
                    f"training diverged after {steps} steps; lower lr={lr}. State.stability_limit tells the largest "
                    "lr that is stable near a solution",
                    time=steps,
                    state=State(alignment, net.feedback, P),
                )
            alignment, steps = after, steps + 1
        losses.append(_loss(alignment, grams, x, y))
        if epoch in kept:
            states[epoch] = State(alignment, net.feedback, P)
    recorded, kept_states = tuple(states), tuple(states.values())
    return Training(alignment, net.feedback, P, losses=np.array(losses), recorded=recorded, states=kept_states)


def _loss(alignment: list[Array], grams: list[Array], x: Array, y: Array) -> float:
    """Return ½|ŷ − y|², mean over samples."""
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is refused by `train`
        return float(np.square(codes(alignment, grams, x)[-1] - y).sum() / 2 / len(x))


def _step(alignment: list[Array], grams: list[Array], P: Array | None, x: Array, y: Array, lr: float) -> list[Array]:
    """Return the alignment matrices after one step on a batch."""
    with np.errstate(over="ignore", invalid="ignore"):  # a step that diverges is found and refused by `train`
        below = [x, *codes(alignment, grams, x)]
        e = below[-1] - y
        sent = e if P is None else e @ P.T
        *hidden, last = alignment
        moved = [A - lr * sent.T @ c for A, c in zip(hidden, below, strict=False)]
        return [*moved, last - lr * e.T @ below[-2]]
