r"""The order-parameter equations of the limit N → ∞ and their integration.

With s = (−v, A), f = F under DFA and f = v under backprop, and the averages of `integrals`:

.. math::
    \dot R_{km} &= η f_k \sum_a s_a I_3(k; m, a), \qquad \dot v_k = η_v \sum_a s_a I_2(k, a),

    \dot Q_{kl} &= η f_k \sum_a s_a I_3(k; l, a) + η f_l \sum_a s_a I_3(l; k, a)
        + \frac{η^2}{B} f_k f_l \Big[\sum_{ab} s_a s_b I_4(k, l; a, b) + σ^2 J_2(k, l)\Big].

The last term comes from the length of an update. Averaged over B inputs it is B times smaller, since different inputs
are orthogonal as N → ∞; the other terms are means and stay.

Source: Refinetti et al. (2021), appendix; Saad & Solla (1995).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from feedalign.errors import DivergenceError
from feedalign.theory.shallow import checks
from feedalign.theory.shallow.compiling import compiled
from feedalign.theory.shallow.integrals import RELU, i2, i3, i4, j2
from feedalign.theory.shallow.order_parameters import OrderParameters, generalisation_error
from feedalign.theory.shallow.setting import Rule, Setting, check_times
from feedalign.theory.shallow.trajectory import Trajectory

Array = NDArray[np.float64]

# Order parameters are O(1); a state this large has no digits left for the differences that drive it.
DIVERGED = 1e12
METHODS = ("LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF")


@compiled
def _covariance(state: Array, T: Array, K: int) -> Array:
    n = K + len(T)
    C = np.empty((n, n))
    C[:K, :K] = state[: K * K].reshape(K, K)
    C[:K, K:] = state[K * K : K * n].reshape(K, n - K)
    C[K:, :K] = C[:K, K:].T
    C[K:, K:] = T
    return C


@compiled
def _negative_part(C: Array) -> Array:
    """What a symmetric matrix has beyond the nearest positive semi-definite one."""
    if not np.isfinite(C).all():  # implicit methods try such states; the answer then is not finite either
        return np.zeros_like(C)
    eigenvalues, vectors = np.linalg.eigh(C)
    if eigenvalues[0] >= 0.0:
        return np.zeros_like(C)
    return (vectors * np.minimum(eigenvalues, 0.0)) @ vectors.T


@compiled
def drift(
    state: Array,
    T: Array,
    A: Array,
    feedback: Array,
    backprop: bool,
    activation: int,
    lr: float,
    lr_readout: float,
    noise_variance: float,
    batch_size: int,
) -> Array:
    """Return d(state)/dt for a state that holds Q [K, K], R [K, M] and v [K] one after the other, flat.

    T is [M, M], A [M], feedback [K] (not read under backprop); noise_variance is σ².
    """
    M = A.size
    K = feedback.size
    n = K + M
    C = _covariance(state, T, K)
    # A solver's error can take C out of the covariances, where relu averages mean nothing: left alone, their formulas
    # drive a student from the teacher it has learned to a false fixed point. The nearest covariance is asked instead,
    # and what lies beyond it decays.
    beyond = _negative_part(C) if activation == RELU else np.zeros_like(C)
    C -= beyond
    v = state[K * n :]
    f = v if backprop else feedback
    s = np.concatenate((-v, A))

    pull = np.zeros((K, n))  # Σ_a s_a I3(k; m, a): the mean of g'(λ_k) u_m Δ
    for k in range(K):
        for m in range(n):
            for a in range(n):
                pull[k, m] += s[a] * i3(activation, C, k, m, a)

    change = np.empty_like(state)
    for k in range(K):
        for l in range(k, K):
            square = noise_variance * j2(activation, C, k, l)  # the mean of g'(λ_k) g'(λ_l) Δ²
            for a in range(n):
                square += s[a] ** 2 * i4(activation, C, k, l, a, a)
                for b in range(a):
                    square += 2 * s[a] * s[b] * i4(activation, C, k, l, a, b)
            change[k * K + l] = lr * (f[k] * pull[k, l] + f[l] * pull[l, k]) + lr**2 / batch_size * f[k] * f[l] * square
            change[k * K + l] -= lr * beyond[k, l]
            change[l * K + k] = change[k * K + l]
        for m in range(M):
            change[K * K + k * M + m] = lr * (f[k] * pull[k, K + m] - beyond[k, K + m])
        change[K * n + k] = 0.0
        for a in range(n):
            change[K * n + k] += lr_readout * s[a] * i2(activation, C, k, a)
    return change


def integrate(
    start: OrderParameters,
    *,
    feedback: ArrayLike | None = None,
    lr: float,
    times: ArrayLike,
    activation: str = "erf",
    noise_std: float = 0.0,
    rule: Rule = "dfa",
    lr_readout: float | None = None,
    batch_size: int = 1,
    stop_at_error: float | None = None,
    method: str = "LSODA",
    rtol: float = 1e-8,
    atol: float = 1e-10,
    max_step: float = np.inf,
) -> Trajectory:
    """Integrate the order-parameter equations from `start`, the state at time 0.

    Time is steps / input_dim. The defaults keep order parameters of size one within about 1e-7 of the exact ones;
    LSODA changes to an implicit method by itself when a large learning rate makes the equations stiff.

    Args:
        start: state at time 0.
        feedback: F, [K]; needed by DFA. Under backprop it changes nothing but lets `Trajectory.overlap` be measured.
        lr: η, learning rate of the first layer.
        times: when to report the state, [n], increasing; need not begin at 0.
        activation: "erf" (g(x) = erf(x/√2)), "relu" or "linear".
        noise_std: σ of the label noise.
        rule: "dfa" or "bp".
        lr_readout: η_v, learning rate of the second layer; lr unless given, 0 freezes it.
        batch_size: B, inputs a step averages its update over; time still counts steps.
        stop_at_error: stop when ε_g has sunk to this. The last time of the trajectory is then when it did; the
            requested times after it are left out. Below about 1e-7 smaller tolerances are needed as well.
        method: a solver of `scipy.integrate.solve_ivp`: LSODA, RK45, RK23, DOP853, Radau or BDF.
        rtol: relative tolerance of the solver.
        atol: absolute tolerance of the solver.
        max_step: longest step the solver may take, in units of time.

    Returns:
        The state at `times`.

    Raises:
        ArgumentError: an argument is out of range or does not fit `start`.
        DivergenceError: the dynamics left the finite numbers; says when, and keeps the last finite state.
    Source: Refinetti et al. (2021); Saad & Solla (1995).
    """
    setting = Setting.make(start, feedback, rule, activation, lr, lr_readout, noise_std, batch_size)
    checked_times = check_times(times)
    if stop_at_error is not None:
        checks.positive("stop_at_error", stop_at_error, ", or None to go to the last time")
    checks.one_of("method", method, METHODS)
    checks.positive("rtol", rtol)
    checks.positive("atol", atol)
    if max_step != np.inf:
        checks.positive("max_step", max_step, ", or infinity to leave it to the solver")

    def rhs(time: float, state: Array) -> Array:  # noqa: ARG001 — solve_ivp's signature; the dynamics is autonomous
        return drift(
            np.ascontiguousarray(state),  # implicit methods probe columns
            start.T,
            start.A,
            setting.feedback,
            setting.backprop,
            setting.activation,
            setting.lr,
            setting.lr_readout,
            setting.noise_std**2,
            setting.batch_size,
        )

    last_time, last_state = 0.0, np.concatenate((start.Q.ravel(), start.R.ravel(), start.v))

    def headroom(time: float, state: Array) -> float:
        # solve_ivp looks at its events after every step; when it fails it does not return the last good one.
        nonlocal last_time, last_state
        if np.isfinite(state).all():
            last_time, last_state = time, state.copy()
        return DIVERGED - float(np.abs(state).max())

    def excess(time: float, state: Array) -> float:  # noqa: ARG001 — likewise
        C = _covariance(state, start.T, start.students)
        error = generalisation_error(setting.activation, C, state[len(state) - start.students :], start.A)
        return float(error) - (stop_at_error or 0.0)

    events: list[Any] = [headroom] if stop_at_error is None else [headroom, excess]
    for event in events:
        event.terminal = True  # how solve_ivp is told to stop
    if checked_times[-1] == 0 or (stop_at_error is not None and excess(0.0, last_state) <= 0):
        return _trajectory(np.zeros(1), last_state[None], start, setting)
    with warnings.catch_warnings():
        # A failing solver warns and returns a status; the status becomes our error.
        warnings.filterwarnings("ignore", module="scipy")
        solution = solve_ivp(
            rhs,
            (0.0, checked_times[-1]),
            last_state,
            method=method,
            t_eval=checked_times,
            events=events,
            rtol=rtol,
            atol=atol,
            max_step=max_step,
        )
    if solution.status == -1 or len(solution.t_events[0]):
        raise DivergenceError(
            f"the dynamics diverged at t = {last_time:.4g} ({solution.message}); lower lr={lr} or stop before",
            time=last_time,
            state=_trajectory(np.array([last_time]), last_state[None], start, setting).final,
        )
    if solution.status == 0:
        return _trajectory(solution.t, solution.y.T, start, setting)
    before = checked_times < solution.t_events[1]
    # Where it stopped before all of the times, solve_ivp gives an empty list in place of an array.
    states = np.reshape(solution.y, (len(last_state), -1)).T[: before.sum()]
    reached = np.append(checked_times[before], solution.t_events[1])
    return _trajectory(reached, np.vstack((states, solution.y_events[1])), start, setting)


def _trajectory(times: Array, states: Array, start: OrderParameters, setting: Setting) -> Trajectory:
    n, K, M = len(times), start.students, start.teachers
    Q, R, v = np.split(states, [K * K, K * (K + M)], axis=1)
    return Trajectory(times, Q.reshape(n, K, K), R.reshape(n, K, M), v, start, setting)
