"""Integration of the order-parameter equations along time."""

from __future__ import annotations

import functools
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from feedalign.checks import Array, one_of, positive_number
from feedalign.errors import DivergenceError, TimeLimitError
from feedalign.theory.shallow.ode import DIVERGED, covariance, drift
from feedalign.theory.shallow.order_parameters import OrderParameters, generalisation_error
from feedalign.theory.shallow.setting import Rule, Setting, check_times
from feedalign.theory.shallow.trajectory import Trajectory

METHODS = ("LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF")


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
    max_seconds: float | None = None,
) -> Trajectory:
    """Integrate the order-parameter equations from `start`, the state at time 0.

    Time is steps / input_dim. The defaults keep order parameters of size one within about 1e-7 of the exact ones;
    LSODA changes to an implicit method by itself where a large learning rate makes the equations stiff.

    Args:
        start: state at time 0.
        feedback: F, [K]; needed by DFA. Backprop does not use it; give it to measure `Trajectory.overlap`.
        lr: η, learning rate of the first layer.
        times: when to report the state, [n], increasing; need not begin at 0.
        activation: "erf" (g(x) = erf(x/√2)), "relu" or "linear".
        noise_std: σ of the label noise.
        rule: "dfa" or "bp".
        lr_readout: η_v, learning rate of the second layer; lr unless given, 0 freezes it.
        batch_size: B, inputs a step averages its update over; time still counts steps.
        stop_at_error: stop when ε_g has sunk to this value. The last time of the trajectory is then the time when ε_g
            reached it; later requested times are left out. Values below about 1e-7 need smaller tolerances as well.
        method: a solver of `scipy.integrate.solve_ivp`: LSODA, RK45, RK23, DOP853, Radau or BDF.
        rtol: relative tolerance of the solver.
        atol: absolute tolerance of the solver.
        max_step: longest step the solver may take, in units of time.
        max_seconds: give up after so many seconds of computing. Without a limit, very large learning rates can keep an
            explicit method busy for hours.

    Returns:
        The state at `times`.

    Raises:
        ArgumentError: an argument is out of range or does not fit `start`.
        DivergenceError: the dynamics left the finite numbers. The error has the time, and the last finite state.
        TimeLimitError: max_seconds were over. The error has the time that was reached, and the state at that time.
    Source: Refinetti et al. (2021); Saad & Solla (1995).
    """
    setting = Setting.make(start, feedback, rule, activation, lr, lr_readout, noise_std, batch_size)
    checked_times = check_times(times)
    solver = {
        "method": one_of("method", method, METHODS),
        "rtol": positive_number("rtol", rtol),
        "atol": positive_number("atol", atol),
        "max_step": max_step,
    }
    if not (isinstance(max_step, float) and max_step == np.inf):
        solver["max_step"] = positive_number("max_step", max_step, advice="or infinity to leave it to the solver")
    if stop_at_error is not None:
        stop_at_error = positive_number("stop_at_error", stop_at_error, advice="or None for no such stop")
    if max_seconds is not None:
        max_seconds = positive_number("max_seconds", max_seconds, advice="or None for no such limit")
    return _integrated(_Watch(start, setting, stop_at_error, max_seconds), checked_times, solver)


def _integrated(watch: _Watch, times: Array, solver: dict[str, Any]) -> Trajectory:
    stops = watch.stop_at_error is not None
    if times[-1] == 0 or (stops and watch.excess(0.0, watch.state) <= 0):
        return watch.trajectory(np.zeros(1), watch.state[None])
    events: list[Any] = [functools.partial(watch.headroom), *([functools.partial(watch.excess)] if stops else [])]
    for event in events:
        event.terminal = True  # how solve_ivp is told to stop
    if watch.max_seconds is not None:
        watch.slope(0.0, watch.state)  # what must be compiled first is compiled before the clock starts
        watch.deadline = time.monotonic() + watch.max_seconds
    # A failing solver warns and returns a status; the status becomes our error.
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        warnings.filterwarnings("ignore", module="scipy")
        # A solver sees a limit only where a step crosses it, and without a finite slope it tries for ever.
        if watch.headroom(0.0, watch.state) <= 0 or not np.isfinite(watch.slope(0.0, watch.state)).all():
            raise watch.diverged("the start is beyond what floating-point numbers can follow")
        solution = solve_ivp(watch.slope, (0.0, times[-1]), watch.state, t_eval=times, events=events, **solver)
    if solution.status == -1 or len(solution.t_events[0]):
        raise watch.diverged(solution.message)
    if solution.status == 0:
        return watch.trajectory(solution.t, solution.y.T)
    before = times < solution.t_events[1]
    # Where it stopped before all of the times, solve_ivp gives an empty list in place of an array.
    states = np.reshape(solution.y, (len(watch.state), -1)).T[: before.sum()]
    reached = np.append(times[before], solution.t_events[1])
    return watch.trajectory(reached, np.vstack((states, solution.y_events[1])))


class _Watch:
    """The equations as `solve_ivp` calls them, and an eye on the solver: the last finite state, and when to stop."""

    def __init__(
        self, start: OrderParameters, setting: Setting, stop_at_error: float | None, max_seconds: float | None
    ) -> None:
        self.start, self.setting, self.stop_at_error, self.max_seconds = start, setting, stop_at_error, max_seconds
        self.time, self.state = 0.0, np.concatenate((start.Q.ravel(), start.R.ravel(), start.v))
        self.deadline = np.inf

    def slope(self, time_: float, state: Array) -> Array:  # noqa: ARG002 — solve_ivp's signature; the dynamics is autonomous
        """Return d(state)/dt; raise TimeLimitError when the seconds are over."""
        if time.monotonic() > self.deadline:
            raise TimeLimitError(
                f"the integration took longer than max_seconds={self.max_seconds:g} and had reached "
                f"t = {self.time:.4g}; lower lr={self.setting.lr:g}, loosen rtol and atol, or allow more seconds",
                time=self.time,
                state=self.last(),
            )
        setting = self.setting
        state = np.ascontiguousarray(state)  # implicit methods probe columns
        return drift(
            state, self.start.T, self.start.A, setting.feedback, setting.backprop, setting.activation,
            setting.lr, setting.lr_readout, setting.noise_std * setting.noise_std, setting.batch_size,
        )  # fmt: skip

    def headroom(self, time_: float, state: Array) -> float:
        """Return how far the state is from divergence, and keep the state.

        solve_ivp looks at its events after every step; when it fails it does not return the last good one.
        """
        if np.isfinite(state).all():
            self.time, self.state = time_, state.copy()
        return DIVERGED - float(np.abs(state).max())

    def excess(self, time_: float, state: Array) -> float:  # noqa: ARG002 — solve_ivp's signature
        """Return by how much ε_g is above the error to stop at."""
        K, M = self.start.students, self.start.teachers
        Q, R, v = state[: K * K], state[K * K : K * (K + M)], state[K * (K + M) :]
        C = covariance(Q.reshape(K, K), R.reshape(K, M), self.start.T)
        error = generalisation_error(self.setting.activation, C, v, self.start.A)
        return float(error) - (self.stop_at_error or 0.0)

    def diverged(self, why: str) -> DivergenceError:
        """Return the error that says when the dynamics diverged."""
        return DivergenceError(
            f"the dynamics diverged at t = {self.time:.4g} ({why}); lower lr={self.setting.lr} or stop before",
            time=self.time,
            state=self.last(),
        )

    def last(self) -> OrderParameters:
        """Return the last finite state that the solver reached."""
        return self.trajectory(np.array([self.time]), self.state[None]).final

    def trajectory(self, times: Array, states: Array) -> Trajectory:
        """Return flat states [n, K (K + M + 1)] at n times as a trajectory."""
        n, K, M = len(times), self.start.students, self.start.teachers
        Q, R, v = np.split(states, [K * K, K * (K + M)], axis=1)
        return Trajectory(times, Q.reshape(n, K, K), R.reshape(n, K, M), v, self.start, self.setting)
