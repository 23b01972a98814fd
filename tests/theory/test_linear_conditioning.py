"""The conditioner of a deep linear network: what it is, and how much faster outputs of unlike sizes are learned."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from tests.cases.linear import Array

from feedalign.errors import ArgumentError
from feedalign.theory import linear


def covariance(alpha: float, beta: float) -> Array:
    return np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])


@pytest.mark.parametrize(
    ("alpha", "beta", "plain", "aligned"),
    [(1, 1, (94, 106), 0.9), (0.5, 1, (166, 186), 0.7), (0.2, 1, (362, 402), 0.5), (1, 0.2, (182, 192), 0.7),
     (0.2, 0.2, (530, 573), 0.5)],
)  # fmt: skip
def test_conditioned_feedback_learns_ill_conditioned_outputs_as_fast_as_white_ones(
    alpha: float, beta: float, plain: tuple[int, int], aligned: float
) -> None:
    """Population descent, L = 4, width 100, η = 0.02: steps until the loss is 1 % of its start, three seeds."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        basis = np.linalg.qr(rng.standard_normal((10, 2)))[0]
        teacher = np.real(sqrtm(covariance(alpha, beta))) @ basis.T
        F = linear.draw_feedback([100] * 3, 2, rng)
        steps, means = [], []
        for P in (None, linear.conditioner(teacher)):
            run = linear.population(
                np.eye(10), teacher, feedback=F, lr=0.02, steps=600, conditioning=P, record=range(5, 601, 5)
            )
            steps.append(int(np.argmax(run.losses < 0.01 * run.losses[0])))
            x = rng.standard_normal((200, 10))
            on_the_way = [state for state, step in zip(run.states, run.recorded, strict=True) if step <= steps[-1]]
            means.append(np.mean([state.gradient_alignment(x, x @ teacher.T)[0] for state in on_the_way]))
        assert plain[0] <= steps[0] <= plain[1]
        assert 94 <= steps[1] <= 107
        assert means[1] > aligned
        assert means[1] > means[0] - 0.01


def test_the_conditioner_is_the_inverse_root() -> None:
    cov = np.random.default_rng(0).standard_normal((3, 7))
    P = linear.conditioner(cov)
    np.testing.assert_allclose(P, P.T, atol=1e-12)
    np.testing.assert_allclose(P @ cov @ cov.T @ P, np.eye(3), atol=1e-10)


def test_directions_left_out_are_sent_nothing_and_the_others_as_without_them() -> None:
    """Targets that sum to zero, as those of a softmax, have no covariance along (1, ..., 1)."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(np.column_stack([np.ones(4), rng.standard_normal((4, 3))]))[0][:, 1:]
    within = rng.standard_normal((3, 7))
    P = linear.conditioner(basis @ within, leave_out=1e-9)
    np.testing.assert_allclose(P @ np.ones(4), 0, atol=1e-12)
    np.testing.assert_allclose(basis.T @ P @ basis, linear.conditioner(within), atol=1e-10)
    with pytest.raises(ArgumentError, match="cov_yx has rank 3, expected that of its 4 outputs"):
        linear.conditioner(basis @ within)
    with pytest.raises(ArgumentError, match="cov_yx has rank 0"):
        linear.conditioner(np.zeros((3, 7)), leave_out=1e-9)
