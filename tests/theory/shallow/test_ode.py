"""The order-parameter equations: order, start, semigroup, symmetry, fixed points, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, cast

import numpy as np
import pytest

from feedalign.errors import ArgumentError, DivergenceError, TimeLimitError
from feedalign.theory import shallow
from feedalign.theory.shallow.integrals import activation_code
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


def test_the_teacher_is_a_fixed_point_without_noise() -> None:
    A = np.array([0.5, 2.0])
    start = shallow.OrderParameters(Q=np.eye(2), R=np.eye(2), T=np.eye(2), v=A, A=A)
    end = shallow.integrate(start, feedback=F, lr=0.5, times=[100.0])
    np.testing.assert_allclose(end.R[0], np.eye(2), atol=1e-12)
    np.testing.assert_allclose(end.v[0], A, atol=1e-12)


@pytest.mark.parametrize("lr", [0.1, 0.5, 1.5])
def test_one_linear_unit_follows_its_closed_solution(lr: float) -> None:
    r"""With v = F = A = 1 frozen, ΔR = R − T and D = Q − 2R + T decay, and noise keeps D at η σ² / (2 − η).

    dΔR/dt = −η ΔR and dD/dt = −(2η − η²) D + η² σ², from ε_g = D/2.
    """
    sigma, times = 0.4, np.array([0.0, 0.7, 3.0, 10.0, 1000.0])
    start = shallow.OrderParameters(Q=[[0.5]], R=[[-0.3]], T=[[1.2]], v=[1.0], A=[1.0])  # type: ignore[arg-type]
    run = shallow.integrate(
        start, feedback=[1.0], lr=lr, lr_readout=0.0, noise_std=sigma, activation="linear", times=times
    )
    np.testing.assert_allclose(run.R[:, 0, 0] - 1.2, (-0.3 - 1.2) * np.exp(-lr * times), atol=1e-7)
    rest = lr * sigma**2 / (2 - lr)
    D = rest + (0.5 + 0.6 + 1.2 - rest) * np.exp(-lr * (2 - lr) * times)
    np.testing.assert_allclose(run.generalisation_error, D / 2, atol=1e-7)


@pytest.mark.parametrize(("activation", "v"), [("erf", [-1.5, 0.8]), ("relu", [0.8, 1.5])])
def test_after_a_long_time_it_rests_at_the_minimum_dfa_selects(activation: str, v: list[float]) -> None:
    """erf: the signed permutation of A nearest to F. ReLU, F > 0: v_k |w_k|, since units can be rescaled."""
    rng = np.random.default_rng(3)
    start = shallow.OrderParameters.from_weights(
        w=0.01 * rng.standard_normal((2, 500)), w_teacher=rng.standard_normal((2, 500)), v=[0.01, 0.02], A=[0.8, 1.5]
    )
    feedback = [-1.2, 0.5] if activation == "erf" else [0.5, 1.2]
    end = shallow.integrate(start, feedback=feedback, lr=0.1, times=[20_000.0], activation=activation).final
    assert end.generalisation_error(activation) < 1e-7
    if activation == "erf":
        np.testing.assert_allclose(end.v, v, atol=1e-3)
        np.testing.assert_allclose(end.R, [[0, -1], [1, 0]] @ start.T, atol=1e-3)
    else:
        np.testing.assert_allclose(end.v * np.sqrt(np.diag(end.Q)), v * np.sqrt(np.diag(start.T)), atol=1e-3)


@pytest.mark.parametrize("lr", [0.1, 0.3])
def test_a_relu_student_that_has_learned_its_teacher_stays_there(lr: float) -> None:
    """Students and teachers then lie in one plane, on the edge of what is a covariance; errors must not push beyond."""
    rng = np.random.default_rng(0)
    A, scale = np.array([0.8, 1.5]), np.array([0.5, 2.0])
    w_teacher = 2 * np.hstack((np.linalg.cholesky([[1.0, 0.2], [0.2, 0.8]]), np.zeros((2, 2))))
    w = scale[:, None] * w_teacher + 0.05 * rng.standard_normal((2, 4))
    start = shallow.OrderParameters.from_weights(w=w, w_teacher=w_teacher, v=A / scale + 0.03, A=A)
    run = shallow.integrate(start, feedback=[0.7, 1.3], lr=lr, times=[10.0, 2000.0, 5000.0], activation="relu")
    assert run.generalisation_error[0] > 1e-5
    assert np.abs(run.generalisation_error[1:]).max() < 1e-9
    assert np.linalg.eigvalsh(run.final.covariance)[0] > -1e-8
    minimum, distance = shallow.nearest_minimum(run.final, "relu")
    np.testing.assert_array_equal(minimum.v, A)
    assert distance < 1e-4


def test_it_stops_when_the_error_has_sunk_to_what_was_asked(make_start: MakeStart) -> None:
    times = np.array([0.0, 1.0, 10.0, 100.0, 10_000.0])
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.3}
    whole = shallow.integrate(make_start(), times=times, **kwargs)
    stopped = shallow.integrate(make_start(), times=times, stop_at_error=1e-3, **kwargs)
    assert stopped.generalisation_error[-1] == pytest.approx(1e-3, rel=1e-6)
    assert 0 < stopped.times[-1] < times[-1]
    n = len(stopped.times) - 1
    np.testing.assert_array_equal(stopped.times[:-1], times[times < stopped.times[-1]])
    np.testing.assert_allclose(stopped.R[:-1], whole.R[:n], atol=1e-9)
    np.testing.assert_allclose(
        shallow.integrate(make_start(), times=stopped.times[-1:], **kwargs).R[-1], stopped.R[-1], atol=1e-6
    )
    never = shallow.integrate(make_start(), times=times[:2], stop_at_error=1e-30, **kwargs)
    np.testing.assert_array_equal(never.times, times[:2])
    at_once = shallow.integrate(make_start(), times=times, stop_at_error=1e3, **kwargs)
    np.testing.assert_array_equal(at_once.times, [0.0])
    with pytest.raises(ArgumentError, match=r"stop_at_error must be a finite number above 0, got 0.0"):
        shallow.integrate(make_start(), times=times, stop_at_error=0.0, **kwargs)


@pytest.mark.parametrize("activation", ["erf", "relu", "linear"])
def test_batches_shorten_only_the_square_of_the_update(make_start: MakeStart, activation: str) -> None:
    start, code = make_start(), activation_code(activation)
    y = np.concatenate((start.Q.ravel(), start.R.ravel(), start.v))
    one, ten, all_ = (drift(y, start.T, start.A, F, False, code, 0.5, 0.5, 0.3, b) for b in (1, 10, 10**12))
    np.testing.assert_allclose(ten - all_, (one - all_) / 10, atol=1e-11)
    assert np.abs(one - all_)[:4].min() > 0
    np.testing.assert_array_equal(one[4:], ten[4:])


def test_feedback_equal_to_a_frozen_readout_is_backprop(make_start: MakeStart) -> None:
    start = make_start()
    kwargs: dict[str, Any] = {"lr": 0.2, "times": [1.0, 10.0], "lr_readout": 0.0}
    dfa = shallow.integrate(start, feedback=start.v, rule="dfa", **kwargs)
    bp = shallow.integrate(start, rule="bp", **kwargs)
    np.testing.assert_allclose(dfa.Q, bp.Q, atol=1e-9)
    np.testing.assert_array_equal(bp.v, np.broadcast_to(start.v, bp.v.shape))


def test_label_noise_enters_only_through_the_square_of_the_update(make_start: MakeStart) -> None:
    """σ appears as η² f_k f_l σ² J2 in dQ/dt alone, and so is of second order in η."""
    start = make_start()
    y = np.concatenate((start.Q.ravel(), start.R.ravel(), start.v))
    for lr in (0.1, 0.2):
        quiet, loud = (drift(y, start.T, start.A, F, False, 0, lr, lr, s, 1) for s in (0.0, 0.7))
        extra = (loud - quiet) / lr**2
        assert np.abs(extra[4:]).max() == 0.0
        assert extra[0] == pytest.approx(0.7 * F[0] ** 2 * 2 / np.pi / np.sqrt(1 + 2 * start.Q[0, 0]), rel=1e-9)


def test_overlap_is_the_cosine_with_the_feedback(make_start: MakeStart) -> None:
    trajectory = shallow.integrate(make_start(), feedback=F, lr=0.1, times=[0.0, 2.0])
    v = trajectory.v[1]
    assert trajectory.overlap[1] == pytest.approx(v @ F / np.linalg.norm(v) / np.linalg.norm(F), abs=1e-14)
    np.testing.assert_allclose(
        shallow.integrate(make_start(), feedback=5 * F, lr=0.1, times=[0.0]).overlap, trajectory.overlap[:1]
    )


def test_no_feedback_no_overlap_and_a_zero_readout_has_no_angle() -> None:
    start = shallow.OrderParameters(
        Q=np.zeros((1, 1)), R=np.zeros((1, 1)), T=np.eye(1), v=np.array([0.0]), A=np.array([1.0])
    )
    with pytest.raises(ArgumentError, match="no feedback to compare v with"):
        _ = shallow.integrate(start, lr=0.1, times=[1.0], rule="bp").overlap
    assert np.isnan(shallow.integrate(start, feedback=[1.0], lr=0.1, times=[0.0]).overlap[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.0, 2.0, 1.0]}, r"times must increase, but times\[2\]=1 follows 2; sort them"),
        ({"times": [1.0, 1.0]}, r"times must increase"),
        ({"times": []}, "at least one time"),
        ({"times": [-1.0, 1.0]}, "times must not be negative, got -1"),
        ({"times": [0.0, np.nan]}, r"times must hold finite numbers only, got nan at times\[1\]"),
        ({"times": [1e300]}, r"times reach to 1e\+300; beyond 9.0072e\+15 floats do not tell t from t \+ 1"),
        ({"activation": "tanh"}, "activation='tanh' is unknown; expected one of erf"),
        ({"rule": "fa"}, "rule='fa' is unknown; expected one of dfa, bp"),
        ({"feedback": None}, "rule='dfa' needs feedback="),
        ({"feedback": [1.0]}, r"feedback must be an array of shape \[2\], got shape \[1\]"),
        ({"feedback": [1.0, np.nan]}, r"feedback must hold finite numbers only, got nan at feedback\[1\]"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": np.nan}, "lr must be a finite number above 0, got nan"),
        ({"lr_readout": -0.1}, "lr_readout must be a finite number of at least 0, got -0.1"),
        ({"noise_std": -0.1}, "noise_std must be a finite number of at least 0, got -0.1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"lr": "fast"}, "lr must be a finite number above 0, got 'fast'"),
        ({"lr": None}, "lr must be a finite number above 0, got None"),
        ({"noise_std": np.nan}, "noise_std must be a finite number of at least 0, got nan"),
        ({"times": "late"}, "times must be an array of real numbers, got 'late'"),
        ({"feedback": "random"}, r"feedback must be an array of real numbers of shape \[2\], got 'random'"),
        ({"activation": ["erf"]}, r"activation=\['erf'\] is unknown"),
        ({"batch_size": np.nan}, "batch_size must be a whole number of at least .*, got nan"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, got 1.5"),
    ],
)
@pytest.mark.parametrize("solve", ["integrate", "simulate"])
def test_bad_input_says_what_was_expected(
    make_start: MakeStart, solve: str, change: dict[str, Any], message: str
) -> None:
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.1, "times": [0.0, 1.0], **change}
    if solve == "simulate":
        kwargs["input_dim"] = 50
    with pytest.raises(ArgumentError, match=message):
        getattr(shallow, solve)(make_start(), **kwargs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "Euler"}, "method='Euler' is unknown; expected one of LSODA, RK45"),
        ({"rtol": 0.0}, "rtol must be a finite number above 0, got 0.0"),
        ({"atol": np.nan}, "atol must be a finite number above 0, got nan"),
        ({"max_step": 0.0}, "max_step must be a finite number above 0, got 0.0"),
        ({"stop_at_error": "small"}, "stop_at_error must be a finite number above 0, got 'small'.*; or None"),
    ],
)
def test_a_bad_solver_option_says_what_was_expected(
    make_start: MakeStart, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        shallow.integrate(make_start(), feedback=F, lr=0.1, times=[1.0], **change)


def test_divergence_says_when_and_keeps_the_last_finite_state() -> None:
    """A linear student with frozen readout explodes for η > 2, where d⟨Q⟩/dt ∝ η² − 2η; both solvers say so."""
    start = shallow.OrderParameters(Q=np.eye(1), R=np.zeros((1, 1)), T=np.eye(1), v=np.array([1.0]), A=np.array([1.0]))
    kwargs: dict[str, Any] = {
        "feedback": [1.0],
        "lr": 5.0,
        "times": [1000.0],
        "activation": "linear",
        "lr_readout": 0.0,
    }
    with pytest.raises(DivergenceError, match=r"the dynamics diverged at t = .*lower lr=5.0") as theory:
        shallow.integrate(start, **kwargs)
    with pytest.raises(DivergenceError, match=r"the simulation diverged at t = .*lower lr=5.0") as simulation:
        shallow.simulate(start, **kwargs, input_dim=30)
    for error in (theory.value, simulation.value):
        assert 0 < error.time < 1000
        assert isinstance(error.state, shallow.OrderParameters)


def test_the_end_of_a_relu_run_whose_units_coincide_is_a_state_to_go_on_from() -> None:
    """The solver's error makes an eigenvalue of the covariance negative; the final state must not be refused for it."""
    rng = np.random.default_rng([0, 1])
    start = shallow.draw_start([1.0, 1.0], students=2, input_dim=500, rng=rng, w_std=0.01, v_std=0.01)
    for rule in ("dfa", "bp"):
        end = shallow.integrate(
            start, feedback=[-0.6, -0.35], lr=3.0, times=[1000.0], activation="relu", rule=cast(Any, rule)
        ).final
        shallow.integrate(end, feedback=[-0.6, -0.35], lr=3.0, times=[1.0], activation="relu")


@pytest.mark.parametrize("method", ["LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF"])
def test_an_endless_integration_stops_at_its_limit_and_can_be_gone_on_with(make_start: MakeStart, method: str) -> None:
    """At η = 10⁵ the equations are so stiff that t = 10⁷ is hours away for every solver."""
    begun = monotonic()
    arguments: dict[str, Any] = {"feedback": F, "lr": 1e5, "method": method}
    with pytest.raises(TimeLimitError, match=r"longer than max_seconds=0.2 and had reached t = .*; lower lr") as stop:
        shallow.integrate(make_start(), times=[1e7], max_seconds=0.2, **arguments)
    assert monotonic() - begun < 60  # the first method compiles
    state, reached = stop.value.state, stop.value.time
    assert isinstance(state, shallow.OrderParameters)
    assert 0 < reached < 1e7
    on = shallow.integrate(make_start(), times=[reached], **arguments).final
    np.testing.assert_allclose(on.v, state.v, rtol=1e-4, atol=1e-6)


def test_a_limit_that_is_not_reached_changes_nothing(make_start: MakeStart) -> None:
    arguments: dict[str, Any] = {"feedback": F, "lr": 0.1, "times": [1.0, 2.0]}
    limited = shallow.integrate(make_start(), max_seconds=1e9, **arguments)
    assert np.array_equal(limited.Q, shallow.integrate(make_start(), **arguments).Q)


@pytest.mark.parametrize("wrong", [0, -1, np.nan, np.inf, True, "long"])
def test_a_limit_is_a_positive_number_of_seconds(make_start: MakeStart, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=r"max_seconds must be a finite number above 0, got .*; or None for"):
        shallow.integrate(make_start(), feedback=F, lr=0.1, times=[1.0], max_seconds=wrong)
