"""Why the signs of the feedback decide what a relu student can learn: the laws behind `can_recover`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from feedalign.checks import Array
from feedalign.theory import shallow
from feedalign.theory.shallow.solutions import can_recover

A = np.ones(2)


def start(scale: float, students: int, seed: int = 0) -> shallow.OrderParameters:
    rng = np.random.default_rng(seed)
    return shallow.draw_start(A, students=students, input_dim=50, rng=rng, w_std=scale, v_std=scale)


def balance(run: shallow.Trajectory) -> Array:
    """|w_k|²/N − 2 (η/η_v) F_k v_k at every time, [..., n, K]."""
    rates = run.setting.lr / run.setting.lr_readout
    return np.diagonal(run.Q, axis1=-2, axis2=-1) - 2 * rates * run.setting.feedback * run.v


@pytest.mark.parametrize("lr_readout", [0.03, 0.1])
@pytest.mark.parametrize("noise_std", [0.0, 0.5])
def test_no_step_lowers_the_balance_of_a_relu_unit(lr_readout: float, noise_std: float) -> None:
    feedback = np.array([1.3, -0.8, 0.4, -2.0])
    run = shallow.simulate(
        start(0.5, 4), feedback=feedback, lr=0.1, lr_readout=lr_readout, times=np.arange(500) / 50, input_dim=50,
        activation="relu", noise_std=noise_std, seeds=range(5),
    )  # fmt: skip
    steps = np.diff(balance(run), axis=-2)
    assert steps.min() > -1e-13  # rounding of numbers of size one
    assert (steps.sum(axis=-2) > 0).all()


def test_erf_units_have_no_such_law() -> None:
    run = shallow.simulate(
        start(0.5, 4), feedback=[1.3, -0.8, 0.4, -2.0], lr=0.1, times=np.arange(500) / 50, input_dim=50, seed=0
    )
    assert np.diff(balance(run), axis=-2).min() < -1e-3


def test_the_balance_is_constant_in_the_limit_of_small_learning_rates() -> None:
    """At equal η t, the increase of the balance is proportional to η."""
    increases = []
    for lr in (2e-3, 1e-3):
        run = shallow.integrate(
            start(0.1, 3), feedback=[1.0, -0.8, 1.2], lr=lr, times=[0.0, 20 / lr], activation="relu"
        )
        first, last = balance(run)
        increases.append(last - first)
    np.testing.assert_allclose(increases[0] / increases[1], 2, rtol=0.02)
    assert increases[1].max() < 0.01


def test_a_unit_whose_readout_opposes_its_feedback_stays_as_short_as_it_began() -> None:
    """At a small learning rate both signs of v_k occur where F_k < 0, but only with a contribution near zero."""
    opposing: list[float] = []
    agreeing: list[float] = []
    for seed in range(4):
        run = shallow.integrate(start(0.1, 3, seed), feedback=[1.0, -0.8, 1.2], lr=1e-3, times=[3e4], activation="relu")
        final = run.final
        contribution = final.v * np.sqrt(np.diag(final.Q))
        opposes = run.setting.feedback * final.v < 0
        opposing.extend(abs(contribution[opposes]))
        agreeing.extend(contribution[run.setting.feedback > 0])
    assert opposing
    assert max(opposing) < 0.05
    assert min(agreeing) > 0.3


@pytest.mark.parametrize("feedback", [[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [0.3, 2.0], [2.0, -0.3]])
def test_a_solution_is_stable_exactly_if_every_readout_has_the_sign_of_its_feedback(feedback: ArrayLike) -> None:
    aside = 0.01  # every unit is this far from its teacher unit, in a direction of its own
    near = shallow.OrderParameters(Q=(1 + aside**2) * np.eye(2), R=np.eye(2), T=np.eye(2), v=A, A=A)
    run = shallow.integrate(near, feedback=feedback, lr=0.05, times=[0.0, 500.0], activation="relu")
    first, last = run.generalisation_error
    assert (last < first) == can_recover(A, feedback)
    assert last < first / 10 or last > 10 * first
