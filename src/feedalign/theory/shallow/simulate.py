r"""Online learning simulated at finite input dimension, in two ways that agree in law.

*Explicit* keeps the weights and draws inputs x ~ N(0, I_N). *Reduced* uses that (Q, R, v) is a Markov chain of its own:
given the local fields u = Lε, with L the Cholesky factor of their covariance and ε standard normal, all that a step
needs of x besides u is its squared length, |x|² = |ε|² + c with c ~ χ²_{N−K−M}. Its cost does not depend on N.

Source: the explicit updates are those of Refinetti et al. (2021); the reduction is exact by rotation invariance of x.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.errors import ArgumentError, DivergenceError
from feedalign.theory.shallow.integrals import activate, activation_slope, compiled
from feedalign.theory.shallow.ode import DIVERGED
from feedalign.theory.shallow.order_parameters import OrderParameters
from feedalign.theory.shallow.setting import Rule, Setting, check_times
from feedalign.theory.shallow.trajectory import Trajectory

Array = NDArray[np.float64]


def simulate(
    start: OrderParameters,
    *,
    feedback: ArrayLike | None = None,
    lr: float,
    times: ArrayLike,
    input_dim: int,
    activation: str = "erf",
    noise_std: float = 0.0,
    rule: Rule = "dfa",
    lr_readout: float | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    method: Literal["reduced", "explicit"] = "reduced",
) -> Trajectory:
    """Simulate online learning from `start`, one fresh Gaussian input a step.

    Both methods begin with exactly the overlaps of `start`. Each seed has a generator of its own, so a batch gives the
    same bits as its seeds one by one, on any number of threads.

    Args:
        start: state at time 0.
        feedback: F, [K]; needed by DFA. Under backprop it changes nothing but lets `Trajectory.overlap` be measured.
        lr: η, learning rate of the first layer.
        times: when to report, in steps / input_dim, rounded to whole steps; `Trajectory.times` has the rounded ones.
        input_dim: N, at least K + M + 1.
        activation: "erf" (g(x) = erf(x/√2)) or "linear".
        noise_std: σ of the label noise.
        rule: "dfa" or "bp".
        lr_readout: η_v, learning rate of the second layer; lr unless given, 0 freezes it.
        seed: seed of the inputs and the label noise.
        seeds: several seeds at once; the arrays of the trajectory then have a leading axis, one entry per seed.
        method: "reduced" or "explicit".

    Returns:
        The state at `times`; with `seeds`, all arrays but the times have a leading axis.

    Raises:
        ArgumentError: an argument is out of range or does not fit `start`.
        DivergenceError: the weights left the finite numbers; says when, and keeps the last finite state.
    """
    setting = Setting.make(start, feedback, rule, activation, lr, lr_readout, noise_std)
    if method not in ("reduced", "explicit"):
        raise ArgumentError(f"method={method!r} is unknown; expected 'reduced' or 'explicit'")
    if input_dim != int(input_dim) or input_dim < start.students + start.teachers + 1:
        raise ArgumentError(
            f"input_dim={input_dim} must be a whole number of at least K + M + 1 = "
            f"{start.students + start.teachers + 1}, so that the units can point in independent directions"
        )
    steps = np.rint(check_times(times) * input_dim).astype(np.int64)
    run = _simulate_reduced if method == "reduced" else _simulate_explicit

    def one(seed: int) -> tuple[Array, Array, Array]:
        return run(start, setting, int(input_dim), steps, np.random.default_rng(seed))

    if seeds is None:
        Q, R, v = one(seed)
    else:
        if not len(seeds):
            raise ArgumentError("seeds is empty; give at least one seed")
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            Q, R, v = (np.stack(arrays) for arrays in zip(*threads.map(one, seeds), strict=True))
    return Trajectory(steps / input_dim, Q, R, v, start, setting)


def _simulate_reduced(
    start: OrderParameters,
    setting: Setting,
    input_dim: int,
    steps: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:
    K, M = start.students, start.teachers
    records = np.empty((len(steps), K + M, K + M)), np.empty((len(steps), K))
    # Teachers come first, so that their rows of the Cholesky factor never change.
    C = np.roll(start.covariance, (M, M), axis=(0, 1))
    v = start.v.copy()
    done = _reduced_steps(
        rng, C, v, start.A, setting.feedback, setting.backprop, setting.activation,
        setting.lr, setting.lr_readout, setting.noise_std, input_dim, steps, *records,
    )  # fmt: skip
    Q, R = records[0][:, M:, M:], records[0][:, M:, :M]
    if done < steps[-1]:
        C = np.tril(C) + np.tril(C, -1).T
        raise _diverged(done / input_dim, setting, OrderParameters(Q=C[M:, M:], R=C[M:, :M], T=start.T, v=v, A=start.A))
    return Q, R, records[1]


def _simulate_explicit(
    start: OrderParameters,
    setting: Setting,
    input_dim: int,
    steps: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:
    K, M = start.students, start.teachers
    records = np.empty((len(steps), K, K)), np.empty((len(steps), K, M)), np.empty((len(steps), K))
    weights = _weights_with(start.covariance, input_dim, rng)
    v = start.v.copy()
    done = _explicit_steps(
        rng, weights, v, start.A, setting.feedback, setting.backprop, setting.activation,
        setting.lr, setting.lr_readout, setting.noise_std, steps, *records,
    )  # fmt: skip
    if done < steps[-1]:
        last = OrderParameters.from_weights(w=weights[:K], w_teacher=weights[K:], v=v, A=start.A)
        raise _diverged(done / input_dim, setting, last)
    return records


def _diverged(time: float, setting: Setting, last: OrderParameters) -> DivergenceError:
    return DivergenceError(
        f"the simulation diverged at t = {time:.4g}; lower lr={setting.lr} or stop before",
        time=time,
        state=last,
    )


def _weights_with(covariance: Array, input_dim: int, rng: np.random.Generator) -> Array:
    """Draw weights [K+M, N] whose overlaps w_a·w_b/N are exactly `covariance`, in random directions."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    factor = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    orthonormal = np.linalg.qr(rng.standard_normal((input_dim, len(covariance))))[0]
    return np.ascontiguousarray(math.sqrt(input_dim) * factor @ orthonormal.T)


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


@compiled
def _residual(g: Array, v: Array, A: Array, students: int, teachers: int) -> float:
    """Return the noiseless Δ = y − ŷ; g are the activated fields, students' and teachers' at these offsets."""
    delta = 0.0
    for m in range(A.size):
        delta += A[m] * g[teachers + m]
    for k in range(v.size):
        delta -= v[k] * g[students + k]
    return delta


@compiled
def _reduced_steps(
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
    record_at: NDArray[np.int64],
    C_records: Array,
    v_records: Array,
) -> int:
    """Advance C and v in place up to the last recorded step; return the steps done, fewer if they diverged.

    Only the lower triangle of C is kept up to date; its records are whole.
    """
    K, M = v.size, A.size
    n = K + M
    L = np.zeros((n, n))
    inverse_diagonal = np.empty(n)
    u = np.empty(n)
    g = np.empty(n)
    d = np.empty(K)
    _update_cholesky(L, inverse_diagonal, C, 0)
    step = 0
    for record in range(record_at.size):
        while step < record_at[record]:
            length = chi_square(rng, N - n)
            for i in range(n):
                u[i] = rng.standard_normal()
                length += u[i] ** 2
            for i in range(n - 1, -1, -1):  # u = L ε in place, last row first
                u[i] *= L[i, i]
                for j in range(i):
                    u[i] += L[i, j] * u[j]
                g[i] = activate(activation, u[i])
            delta = _residual(g, v, A, M, 0)
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
            step += 1
        for i in range(n):
            for j in range(n):
                C_records[record, i, j] = C[max(i, j), min(i, j)]
        v_records[record] = v
    return step


@compiled
def _explicit_steps(
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
    record_at: NDArray[np.int64],
    Q_records: Array,
    R_records: Array,
    v_records: Array,
) -> int:
    """Advance the students' rows of weights and v in place; return the steps done, fewer if they diverged."""
    K = v.size
    N = weights.shape[1]
    root = math.sqrt(N)
    g = np.empty(len(weights))
    step = 0
    for record in range(record_at.size):
        while step < record_at[record]:
            x = rng.standard_normal(N)
            u = weights @ x / root
            for a in range(u.size):
                g[a] = activate(activation, u[a])
            delta = _residual(g, v, A, 0, K)
            if noise_std > 0.0:
                delta += noise_std * rng.standard_normal()
            if not abs(delta) < DIVERGED:
                return step
            for k in range(K):
                f = v[k] if backprop else feedback[k]
                weights[k] += lr / root * f * activation_slope(activation, u[k]) * delta * x
                v[k] += lr_readout * g[k] * delta / N
            step += 1
        Q_records[record] = weights[:K] @ weights[:K].T / N
        R_records[record] = weights[:K] @ weights[K:].T / N
        v_records[record] = v
    return step
