"""Order parameters: what is accepted, what is refused and why, and the error they imply."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from feedalign.errors import ArgumentError, FeedalignError
from feedalign.theory.shallow import OrderParameters

GOOD = {"Q": np.eye(2), "R": np.zeros((2, 3)), "T": np.eye(3), "v": np.ones(2), "A": np.ones(3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": np.zeros((3, 2))}, r"R has shape \(3, 2\), expected \(2, 3\)"),
        ({"v": np.ones((2, 1))}, r"v and A must be vectors \[K\] and \[M\], got shapes \(2, 1\)"),
        ({"v": np.ones(0)}, r"v and A must be vectors \[K\] and \[M\], got shapes \(0,\)"),
        ({"Q": [[1.0, 0.5], [0.2, 1.0]]}, "Q must be symmetric"),
        ({"R": np.ones((2, 3))}, "has the eigenvalue -.*positive semi-definite"),
        ({"Q": -np.eye(2)}, "has the eigenvalue -1"),
        ({"A": [1.0, np.nan, 0.0]}, r"A must hold finite numbers only, got nan at A\[1\]"),
        ({"A": "random"}, "A must be an array of real numbers, got 'random'"),
        ({"v": [1.0, [2.0]]}, r"v must be an array of real numbers, got \[1.0, \[2.0\]\]"),
        ({"Q": 1j * np.eye(2)}, "Q must be an array of real numbers"),
    ],
)
def test_what_no_weights_could_have_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        OrderParameters(**{**GOOD, **change})  # type: ignore[arg-type]
    assert isinstance(caught.value, FeedalignError)
    assert isinstance(caught.value, ValueError)


def test_weights_of_different_input_dimension_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"w_teacher must be an array of shape \[M, 5\], got shape \[2, 6\]"):
        OrderParameters.from_weights(w=np.ones((2, 5)), w_teacher=np.ones((2, 6)), v=np.ones(2), A=np.ones(2))
    with pytest.raises(ArgumentError, match=r"w must be an array of shape \[K, N\], got shape \[2, 0\]"):
        OrderParameters.from_weights(w=np.ones((2, 0)), w_teacher=np.ones((2, 0)), v=np.ones(2), A=np.ones(2))
    with pytest.raises(ArgumentError, match=r"w must be an array of real numbers of shape \[K, N\], got 'small'"):
        OrderParameters.from_weights(w="small", w_teacher=np.ones((2, 6)), v=np.ones(2), A=np.ones(2))


def test_fields_are_read_only_copies() -> None:
    Q = np.eye(2)
    start = OrderParameters(**{**GOOD, "Q": Q})
    Q[0, 0] = 7.0
    assert start.Q[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        start.Q[0, 0] = 7.0


def test_generalisation_error_is_half_the_mean_square_on_fresh_inputs() -> None:
    rng = np.random.default_rng(0)
    w, w_teacher = rng.standard_normal((2, 30)), rng.standard_normal((3, 30))
    v, A = rng.standard_normal(2), rng.standard_normal(3)
    x = rng.standard_normal((200_000, 30)) / np.sqrt(30)
    squares = (erf(x @ w_teacher.T / np.sqrt(2)) @ A - erf(x @ w.T / np.sqrt(2)) @ v) ** 2 / 2
    start = OrderParameters.from_weights(w=w, w_teacher=w_teacher, v=v, A=A)
    assert start.generalisation_error() == pytest.approx(squares.mean(), abs=5 * squares.std() / np.sqrt(len(squares)))


def test_a_student_equal_to_its_teacher_makes_no_error() -> None:
    start = OrderParameters(Q=np.eye(2), R=np.eye(2), T=np.eye(2), v=np.array([0.5, 2.0]), A=np.array([0.5, 2.0]))
    assert start.generalisation_error() == pytest.approx(0.0, abs=1e-14)
