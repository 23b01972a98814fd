"""One step of the explicit simulation: weights are kept, inputs x ~ N(0, I_N) are drawn."""

from __future__ import annotations

import math

import numpy as np

from feedalign.checks import Array
from feedalign.theory.shallow.compiling import compiled_with_reordered_sums
from feedalign.theory.shallow.integrals import activate, activation_slope, residual
from feedalign.theory.shallow.ode import DIVERGED
from feedalign.theory.shallow.order_parameters import OrderParameters
from feedalign.theory.shallow.setting import Setting


class Explicit:
    """A student given by its weights, learning a batch of inputs a step."""

    def __init__(self, start: OrderParameters, setting: Setting, input_dim: int, rng: np.random.Generator) -> None:
        self.start, self.setting, self.input_dim, self.rng = start, setting, input_dim, rng
        self._weights = _weights_with(start.covariance, input_dim, rng)
        self._v = start.v.copy()

    def advance(self, steps: int) -> int:
        """Learn; return the steps done, fewer if the run diverged."""
        setting = self.setting
        return _advance(
            self.rng, self._weights, self._v, self.start.A, setting.feedback, setting.backprop, setting.activation,
            setting.lr, setting.lr_readout, setting.noise_std, setting.batch_size, steps,
        )  # fmt: skip

    def order_parameters(self) -> tuple[Array, Array, Array]:
        """Return Q [K, K], R [K, M] and v [K] as they are now."""
        K, N = self.start.students, self._weights.shape[1]
        students, teachers = self._weights[:K], self._weights[K:]
        return students @ students.T / N, students @ teachers.T / N, self._v.copy()


@compiled_with_reordered_sums
def _advance(
    rng: np.random.Generator,
    weights: Array,
    v: Array,
    A: Array,
    feedback: Array,
    backprop: bool,
    activation: int,
    lr: float,
    lr_readout: float,
    noise_std: float,
    batch_size: int,
    steps: int,
) -> int:
    """Advance the students' rows of weights and v in place; return the steps done, fewer if they diverged."""
    K = v.size
    N = weights.shape[1]
    root = math.sqrt(N)
    u, g = np.empty(len(weights)), np.empty(len(weights))
    d = np.empty((K, batch_size))
    dv = np.empty(K)
    for step in range(steps):
        x = rng.standard_normal((batch_size, N))
        dv[:] = 0.0
        for b in range(batch_size):
            for a in range(len(weights)):
                field = 0.0
                for i in range(N):  # a call into BLAS would cost more than these few hundred products
                    field += weights[a, i] * x[b, i]
                u[a] = field / root
                g[a] = activate(activation, u[a])
            delta = residual(g, v, A, 0, K)
            if noise_std > 0.0:
                delta += noise_std * rng.standard_normal()
            if not abs(delta) < DIVERGED:
                return step
            for k in range(K):
                f = v[k] if backprop else feedback[k]
                d[k, b] = lr / root * f * activation_slope(activation, u[k]) * delta / batch_size
                dv[k] += lr_readout * g[k] * delta / (N * batch_size)
        for k in range(K):  # only now: a batch is learned from weights that stay as they are
            for b in range(batch_size):
                for i in range(N):
                    weights[k, i] += d[k, b] * x[b, i]
        v += dv
    return steps


def _weights_with(covariance: Array, input_dim: int, rng: np.random.Generator) -> Array:
    """Draw weights [K+M, N] whose overlaps w_a·w_b/N are exactly `covariance`, in random directions."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    factor = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    orthonormal = np.linalg.qr(rng.standard_normal((input_dim, len(covariance))))[0]
    return np.ascontiguousarray(math.sqrt(input_dim) * factor @ orthonormal.T)
