"""The order-parameter equations: order of the solver, start, semigroup and symmetries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from feedalign.theory import shallow
from feedalign.theory.shallow.ode import drift

MakeStart = Callable[..., shallow.OrderParameters]

F = np.array([0.7, -1.1])


def runge_kutta(start: shallow.OrderParameters, time: float, steps: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The classical fourth-order method with a fixed step, on the same right-hand side."""
    y, h = np.concatenate((start.Q.ravel(), start.R.ravel(), start.v)), time / steps
    args = (start.T, start.A, F, False, 0, 0.5, 0.5, 0.01, 1)
    for _ in range(steps):
        k1 = drift(y, *args)
        k2 = drift(y + h / 2 * k1, *args)
        k3 = drift(y + h / 2 * k2, *args)
        k4 = drift(y + h * k3, *args)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def test_a_fixed_step_method_converges_to_it_at_its_own_order(make_start: MakeStart) -> None:
    start = make_start()
    end = shallow.integrate(start, feedback=F, lr=0.5, times=[8.0], noise_std=0.1, rtol=1e-12, atol=1e-13).final
    exact = np.concatenate((end.Q.ravel(), end.R.ravel(), end.v))
    steps = np.array([16, 32, 64, 128])
    errors = [np.abs(runge_kutta(start, 8.0, n) - exact).max() for n in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize(("method", "order"), [("RK23", 3), ("RK45", 5)])
def test_fixed_steps_of_the_solver_show_its_order(make_start: MakeStart, method: str, order: int) -> None:
    """With tolerances that accept every step, `max_step` is the step, and the error falls with the method's order.

    RK45 was built to have small terms of fifth order, so at these steps it shows one of nearly six.
    """
    start = make_start()
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.5, "times": [16.0], "noise_std": 0.1}
    exact = shallow.integrate(start, **kwargs, method="DOP853", rtol=1e-13, atol=1e-14).R
    steps = np.array([1.0, 0.5, 0.25, 0.125])
    ends = [shallow.integrate(start, **kwargs, method=method, rtol=1e3, atol=1e3, max_step=h).R for h in steps]
    errors = [np.abs(end - exact).max() for end in ends]
    fitted = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.3 < fitted < order + 1.5


@pytest.mark.parametrize("method", ["DOP853", "RK45", "BDF"])
def test_other_solvers_agree(make_start: MakeStart, method: str) -> None:
    start = make_start(K=3, M=2)
    kwargs: dict[str, Any] = {"feedback": [1.0, -0.5, 0.2], "lr": 0.3, "times": [5.0, 50.0]}
    default = shallow.integrate(start, **kwargs)
    other = shallow.integrate(start, **kwargs, method=method, rtol=1e-9, atol=1e-11)
    for name in ("Q", "R", "v"):
        np.testing.assert_allclose(getattr(other, name), getattr(default, name), atol=2e-6)


def test_time_zero_is_the_start(make_start: MakeStart) -> None:
    start = make_start()
    for times in ([0.0], [0.0, 1.0]):
        trajectory = shallow.integrate(start, feedback=F, lr=0.1, times=times)
        for name in ("Q", "R", "v"):  # the solver interpolates, so the last bit may differ
            np.testing.assert_allclose(getattr(trajectory, name)[0], getattr(start, name), rtol=0, atol=1e-15)
        assert trajectory.generalisation_error[0] == pytest.approx(start.generalisation_error(), abs=1e-15)


def test_going_on_from_half_way_changes_nothing(make_start: MakeStart) -> None:
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.3, "noise_std": 0.2}
    whole = shallow.integrate(make_start(), times=[20.0], **kwargs).final
    half = shallow.integrate(make_start(), times=[10.0], **kwargs).final
    joined = shallow.integrate(half, times=[10.0], **kwargs).final
    for name in ("Q", "R", "v"):
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name), atol=1e-7)


def test_a_vector_of_times_equals_one_at_a_time(make_start: MakeStart) -> None:
    times = np.array([0.5, 3.0, 11.0])
    together = shallow.integrate(make_start(), feedback=F, lr=0.3, times=times)
    for i, time in enumerate(times):
        alone = shallow.integrate(make_start(), feedback=F, lr=0.3, times=[time])
        np.testing.assert_allclose(together.Q[i], alone.Q[0], atol=1e-7)


def test_relabelling_hidden_units_relabels_the_solution(make_start: MakeStart) -> None:
    start, order = make_start(K=3), [2, 0, 1]
    f = np.array([0.4, -1.0, 0.8])
    moved = shallow.OrderParameters(
        Q=start.Q[np.ix_(order, order)], R=start.R[order], T=start.T, v=start.v[order], A=start.A
    )
    base = shallow.integrate(start, feedback=f, lr=0.2, times=[7.0])
    other = shallow.integrate(moved, feedback=f[order], lr=0.2, times=[7.0])
    np.testing.assert_allclose(other.v, base.v[:, order], atol=1e-8)
    np.testing.assert_allclose(other.R, base.R[:, order], atol=1e-8)


def test_flipping_the_sign_of_a_unit_flips_only_its_signs(make_start: MakeStart) -> None:
    """erf is odd: (w, v, F) → (−w, −v, −F) for one unit leaves the network and so its error unchanged."""
    start, flip = make_start(), np.array([-1.0, 1.0])
    moved = shallow.OrderParameters(
        Q=start.Q * np.outer(flip, flip), R=start.R * flip[:, None], T=start.T, v=start.v * flip, A=start.A
    )
    base = shallow.integrate(start, feedback=F, lr=0.2, times=[3.0, 9.0])
    other = shallow.integrate(moved, feedback=F * flip, lr=0.2, times=[3.0, 9.0])
    np.testing.assert_allclose(other.generalisation_error, base.generalisation_error, atol=1e-9)
