"""Draws: the laws they follow, what decides them, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from feedalign.checks import Array
from feedalign.errors import ArgumentError
from feedalign.theory.shallow import OrderParameters
from feedalign.theory.shallow.drawing import draw_feedback, draw_readout, draw_start

START: dict[str, Any] = {"students": 2, "input_dim": 50, "w_std": 0.5, "v_std": 0.2}

# Of a Kolmogorov–Smirnov test: one seed in a million would fail a correct draw.
RARE = 1e-6


def start_of(A: object = (1.0, -0.4), seed: int = 0, **change: Any) -> OrderParameters:
    return draw_start(A, rng=np.random.default_rng(seed), **{**START, **change})  # type: ignore[arg-type]


def test_readouts() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(draw_readout("uniform", 2.0, rng), [1, 1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(draw_readout("uniform", 3, rng), [1, 1, 1])
    np.testing.assert_array_equal(draw_readout("alternating", 5, rng), [1, -1, 1, -1, 1])
    assert stats.kstest(draw_readout("random", 2000, rng), "norm").pvalue > RARE


@pytest.mark.parametrize("input_dim", [5, 30])
def test_overlaps_have_the_law_of_overlaps_of_real_weights(input_dim: int) -> None:
    rng, A, draws = np.random.default_rng(1), np.ones(3), 2000
    drawn: list[Array] = []
    real: list[Array] = []
    for _ in range(draws):
        start = draw_start(A, students=2, input_dim=input_dim, rng=rng, w_std=0.5, v_std=0.2)
        w, w_teacher = 0.5 * rng.standard_normal((2, input_dim)), rng.standard_normal((3, input_dim))
        other = OrderParameters.from_weights(w=w, w_teacher=w_teacher, v=0.2 * rng.standard_normal(2), A=A)
        for numbers, state in ((drawn, start), (real, other)):
            smallest = np.linalg.eigvalsh(state.covariance)[0]  # depends on all entries together
            numbers.append(np.concatenate((state.covariance[np.triu_indices(5)], state.v, [smallest])))
    for ours, theirs in zip(np.transpose(drawn), np.transpose(real), strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > RARE


def test_at_large_input_dimension_the_units_are_orthogonal() -> None:
    start = start_of(input_dim=10**6, w_std=1.0)
    np.testing.assert_allclose(start.covariance, np.eye(4), atol=6e-3)  # six standard errors 1/√N


def test_standard_deviations_set_the_scale_and_nothing_else() -> None:
    unit, small = start_of(w_std=1.0, v_std=1.0), start_of(w_std=1e-3, v_std=10.0)
    np.testing.assert_allclose(small.Q, 1e-6 * unit.Q, rtol=1e-12)
    np.testing.assert_allclose(small.R, 1e-3 * unit.R, rtol=1e-12)
    np.testing.assert_allclose(small.v, 10 * unit.v, rtol=1e-12)
    np.testing.assert_array_equal(small.T, unit.T)


def test_zero_standard_deviations_give_the_zero_start() -> None:
    start = start_of(w_std=0.0, v_std=0.0)
    assert not start.Q.any()
    assert not start.R.any()
    assert not start.v.any()
    assert start.T.any()


@pytest.mark.parametrize("kind", ["random", "positive", "initial", "orthogonal"])
def test_one_state_of_the_generator_is_one_draw(kind: Any) -> None:
    (first, F), (second, again) = (
        (start := draw_start([1.0, 2.0], rng=rng, **START), draw_feedback(kind, start, rng))
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    np.testing.assert_array_equal(first.covariance, second.covariance)
    np.testing.assert_array_equal(first.v, second.v)
    np.testing.assert_array_equal(F, again)


def test_laws_of_random_and_positive_feedback() -> None:
    rng, start = np.random.default_rng(2), start_of()
    for kind, law in {"random": "norm", "positive": "halfnorm"}.items():
        entries = np.ravel([draw_feedback(kind, start, rng) for _ in range(1000)])  # type: ignore[arg-type]
        assert stats.kstest(entries, law).pvalue > RARE


def test_initial_feedback_is_a_copy_of_the_readout() -> None:
    start = start_of()
    F = draw_feedback("initial", start, np.random.default_rng(0))
    np.testing.assert_array_equal(F, start.v)
    F[0] = 7.0
    assert start.v[0] != 7.0


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=2, max_size=6).filter(any), st.integers(0, 2**32))
def test_orthogonal_feedback_is_orthogonal_to_the_teacher(A: list[float], seed: int) -> None:
    start = start_of(A, students=len(A))
    F = draw_feedback("orthogonal", start, np.random.default_rng(seed))
    direction = start.A / np.abs(start.A).max()  # the squares of a tiny A would vanish
    assert abs(F @ direction) <= 1e-12 * np.linalg.norm(F) * np.linalg.norm(direction)
    assert np.linalg.norm(F) > 0


def test_orthogonal_feedback_has_every_direction_and_the_length_of_a_random_one() -> None:
    rng, start = np.random.default_rng(3), start_of([3.0, 0.0, -4.0], students=3)
    draws = np.array([draw_feedback("orthogonal", start, rng) for _ in range(2000)])
    plane = np.array([[0.0, 1.0, 0.0], [0.8, 0.0, 0.6]])
    angles = np.arctan2(*(plane @ draws.T))
    assert stats.kstest(angles, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > RARE
    assert stats.kstest(np.linalg.norm(draws, axis=1), stats.chi(3).cdf).pvalue > RARE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": [[1.0, 2.0]]}, r"A must be an array of shape \[M\], got shape \[1, 2\]"),
        ({"A": []}, r"A must be an array of shape \[M\], got shape \[0\]"),
        ({"A": [1.0, np.nan]}, r"A must hold finite numbers only, got nan at"),
        ({"A": "uniform"}, r"A must be an array of real numbers of shape \[M\], got 'uniform'"),
        ({"students": 0}, "students must be a whole number of at least 1 and at most 10000, got 0"),
        ({"students": 1.5}, "students must be a whole number .*, got 1.5"),
        ({"students": "two"}, "students must be a whole number of at least .*, got 'two'"),
        ({"input_dim": 3}, r"input_dim must be a whole number of at least 4.*, got 3"),
        ({"input_dim": 50.5}, "input_dim must be a whole number of at least .*, got 50.5"),
        ({"w_std": -1.0}, "w_std must be a finite number of at least 0, got -1.0"),
        ({"v_std": math.inf}, "v_std must be a finite number of at least 0, got inf"),
        ({"v_std": None}, "v_std must be a finite number of at least 0, got None"),
    ],
)
def test_bad_starts_say_what_was_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        start_of(**change)


@pytest.mark.parametrize(
    ("kind", "start", "message"),
    [
        ("initial", {"v_std": 0.0}, "kind='initial' copies the start's v, but that is zero"),
        ("orthogonal", {"students": 3}, "so K = M ≥ 2 and A ≠ 0; got K = 3, M = 2"),
        ("orthogonal", {"A": [1.0], "students": 1}, "got K = 1, M = 1"),
        ("orthogonal", {"A": [0.0, 0.0]}, r"got K = 2, M = 2, A = \[0. 0.\]"),
        ("uniform", {}, "kind='uniform' is unknown; expected one of random, positive, initial, orthogonal"),
    ],
)
def test_bad_feedback_says_what_was_expected(kind: Any, start: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        draw_feedback(kind, start_of(**start), np.random.default_rng(0))


def test_bad_readouts_say_what_was_expected() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ArgumentError, match="units must be a whole number of at least 1 and at most 10000, got 0"):
        draw_readout("random", 0, rng)
    with pytest.raises(ArgumentError, match="kind='ones' is unknown; expected one of random, uniform, alternating"):
        draw_readout("ones", 2, rng)  # type: ignore[arg-type]
