"""Training on a whole population of inputs: gradient descent on the expected loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import finite_array, number_at_least, whole_number
from feedalign.errors import ArgumentError
from feedalign.theory.linear.training import Training, train


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
    return dataclasses.replace(found, losses=found.losses * len(x) + W.shape[0] * (noise_std * noise_std) / 2)
