"""Backprop on deep linear networks, with or without a conditioned error: the control of conditioned feedback."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def backprop_losses(weights: list[Array], teacher: Array, lr: float, steps: int, P: Array | None) -> Array:
    """Return the loss before each step of backprop on the population of isotropic inputs, and after the last one.

    Args:
        weights: initial weights, [n_l, n_{l−1}] each; they are not changed.
        teacher: [outputs, inputs].
        lr: η.
        steps: number of steps.
        P: conditioner [outputs, outputs]: hidden layers learn from P e, the readout from e. None: all learn from e.

    Returns:
        [steps + 1].
    """
    weights = [W.copy() for W in weights]
    losses = np.empty(steps + 1)
    for step in range(steps + 1):
        below = [np.eye(teacher.shape[1])]
        for W in weights:
            below.append(W @ below[-1])
        error = below[-1] - teacher
        losses[step] = np.square(error).sum() / 2
        back = error if P is None else P @ error
        gradients = [error @ below[-2].T]
        for l in range(len(weights) - 2, -1, -1):
            back = weights[l + 1].T @ back
            gradients.insert(0, back @ below[l].T)
        for W, gradient in zip(weights, gradients, strict=True):
            W -= lr * gradient
    return losses
