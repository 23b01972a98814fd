"""One step of the reduced simulation: (Q, R, v) as a Markov chain, whatever the input dimension."""

from __future__ import annotations

import math

import numpy as np

from feedalign.checks import Array
from feedalign.theory.shallow.compiling import compiled
from feedalign.theory.shallow.integrals import activate, activation_slope, residual
from feedalign.theory.shallow.ode import DIVERGED
from feedalign.theory.shallow.order_parameters import OrderParameters
from feedalign.theory.shallow.setting import Setting


class Reduced:
    """A student given by its order parameters, learning one input a step."""

    def __init__(self, start: OrderParameters, setting: Setting, input_dim: int, rng: np.random.Generator) -> None:
        self.start, self.setting, self.input_dim, self.rng = start, setting, input_dim, rng
        M = start.teachers
        # Teachers come first, so that their rows of the Cholesky factor never change.
        self._covariance = np.roll(start.covariance, (M, M), axis=(0, 1))
        self._v = start.v.copy()

    def advance(self, steps: int) -> int:
        """Learn; return the steps done, fewer if the run diverged."""
        setting = self.setting
        return _advance(
            self.rng, self._covariance, self._v, self.start.A, setting.feedback, setting.backprop, setting.activation,
            setting.lr, setting.lr_readout, setting.noise_std, self.input_dim, steps,
        )  # fmt: skip

    def order_parameters(self) -> tuple[Array, Array, Array]:
        """Return Q [K, K], R [K, M] and v [K] as they are now."""
        C, M = np.tril(self._covariance), self.start.teachers
        C += np.tril(C, -1).T
        return C[M:, M:], C[M:, :M], self._v.copy()


@compiled
def _advance(
    rng: np.random.Generator,
    C: Array,
    v: Array,
    A: Array,
    feedback: Array,
    backprop: bool,
    activation: int,
    lr: float,
    lr_readout: float,
    noise_std: float,
    N: int,
    steps: int,
) -> int:
    """Advance C and v in place; return the steps done, fewer if they diverged.

    Only the lower triangle of C is kept up to date.
    """
    K, M = v.size, A.size
    n = K + M
    L = np.zeros((n, n))
    inverse_diagonal = np.empty(n)
    u = np.empty(n)
    g = np.empty(n)
    d = np.empty(K)
    _update_cholesky(L, inverse_diagonal, C, 0)
    for step in range(steps):
        length = chi_square(rng, N - n)
        for i in range(n):
            u[i] = rng.standard_normal()
            length += u[i] ** 2
        for i in range(n - 1, -1, -1):  # u = L ε in place, last row first
            u[i] *= L[i, i]
            for j in range(i):
                u[i] += L[i, j] * u[j]
            g[i] = activate(activation, u[i])
        delta = residual(g, v, A, M, 0)
        if noise_std > 0.0:
            delta += noise_std * rng.standard_normal()
        if not abs(delta) < DIVERGED:
            return step
        for k in range(K):
            f = v[k] if backprop else feedback[k]
            d[k] = lr * f * activation_slope(activation, u[M + k]) * delta / N
            v[k] += lr_readout * g[M + k] * delta / N
        for k in range(K):
            for m in range(M):
                C[M + k, m] += d[k] * u[m]
            for l in range(k + 1):
                C[M + k, M + l] += d[k] * u[M + l] + d[l] * u[M + k] + d[k] * d[l] * length
        _update_cholesky(L, inverse_diagonal, C, M)
    return steps


@compiled
def _update_cholesky(L: Array, inverse_diagonal: Array, C: Array, first: int) -> None:
    """Update rows `first` onwards of the lower factor L of C; a direction without variance gets a zero column."""
    for i in range(first, C.shape[0]):
        pivot = C[i, i]
        for j in range(i):
            entry = C[i, j]
            for p in range(j):
                entry -= L[i, p] * L[j, p]
            entry *= inverse_diagonal[j]
            L[i, j] = entry
            pivot -= entry**2
        # What rounding leaves of a pivot that is zero in exact arithmetic must not be divided by.
        inverse_diagonal[i] = 1 / math.sqrt(pivot) if pivot > 1e-14 * C[i, i] else 0.0
        L[i, i] = pivot * inverse_diagonal[i]


@compiled
def chi_square(rng: np.random.Generator, degrees: int) -> float:
    """Draw from χ² with whole degrees of freedom.

    numba's own takes two logarithms a draw; without them a step of the simulation is 6 % shorter.

    Source: Marsaglia & Tsang (2000), ACM Trans. Math. Softw. 26, with the squeeze that nearly always decides.
    """
    if degrees == 1:
        return rng.standard_normal() ** 2
    d = degrees / 2 - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        z = rng.standard_normal()
        v = (1 + c * z) ** 3
        if v > 0:
            uniform = rng.random()
            if uniform < 1 - 0.0331 * z**4 or math.log(uniform) < z**2 / 2 + d * (1 - v + math.log(v)):
                return 2 * d * v
