"""Solutions of the order-parameter equations: fixed points, closed forms, where a run rests, what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from feedalign.errors import ArgumentError
from feedalign.theory import shallow
from feedalign.theory.shallow.integrals import activation_code
from feedalign.theory.shallow.ode import drift

MakeStart = Callable[..., shallow.OrderParameters]
F = np.array([0.7, -1.1])


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


def test_the_end_of_a_relu_run_whose_units_coincide_is_a_state_to_go_on_from() -> None:
    """The solver's error makes an eigenvalue of the covariance negative; the final state must not be refused for it."""
    rng = np.random.default_rng([0, 1])
    start = shallow.draw_start([1.0, 1.0], students=2, input_dim=500, rng=rng, w_std=0.01, v_std=0.01)
    for rule in ("dfa", "bp"):
        end = shallow.integrate(
            start, feedback=[-0.6, -0.35], lr=3.0, times=[1000.0], activation="relu", rule=cast(Any, rule)
        ).final
        shallow.integrate(end, feedback=[-0.6, -0.35], lr=3.0, times=[1.0], activation="relu")
