"""A small deep linear problem, and direct feedback alignment on its weights themselves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedalign.theory import linear

Array = NDArray[np.float64]


def problem(n: int = 6, C: int = 3, samples: int = 12, widths: tuple[int, ...] = (9, 8, 7), seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, n)) / np.sqrt(samples)  # so that Σ x xᵀ is about the identity
    return x, x @ rng.standard_normal((n, C)) / np.sqrt(n), linear.draw_feedback(widths, C, rng)


def explicit(
    x: Array, y: Array, F: list[Array], lr: float, batches: list[Any], weights: list[Array], P: Array | None = None
) -> list[Array]:
    """DFA on the weights themselves."""
    weights = [W.copy() for W in weights]
    for batch in batches:
        layers = [x[batch]]
        for W in weights:
            layers.append(layers[-1] @ W.T)
        e = layers[-1] - y[batch]
        sent = e if P is None else e @ P.T
        signals = [*(sent @ matrix.T for matrix in F), e]
        for W, signal, below in zip(weights, signals, layers[:-1], strict=True):
            W -= lr * signal.T @ below
    return weights


def zero_weights(x: Array, y: Array, F: list[Array]) -> list[Array]:
    sizes = [x.shape[1], *(len(matrix) for matrix in F), y.shape[1]]
    return [np.zeros((above, below)) for below, above in itertools.pairwise(sizes)]
