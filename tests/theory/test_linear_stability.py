"""The step size up to which a deep linear network learns under direct feedback alignment."""

from __future__ import annotations

import numpy as np
import pytest
from tests.cases.linear import Array, explicit, problem

from feedalign.errors import DivergenceError
from feedalign.theory import linear


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("n", [6, 150])
def test_a_solution_bears_half_its_step_size_limit_and_not_three_times_it(n: int, conditioned: bool) -> None:
    """From a solution moved a little, full-batch DFA returns below the limit and leaves above."""
    x, y, F = problem(n=n, samples=4 * n, widths=(12, 12))
    P = linear.conditioner(y.T @ x) if conditioned else None
    run = linear.train(x, y, feedback=F, lr=0.1, epochs=4000, conditioning=P)
    assert run.losses[-1] < 1e-12 * run.losses[0]
    limit = run.stability_limit(x)
    assert limit > 0
    start = [W + 1e-7 * np.random.default_rng(1).standard_normal(W.shape) for W in run.weights()]

    def error(weights: list[Array]) -> float:
        return float(np.linalg.norm(x @ np.linalg.multi_dot(weights[::-1]).T - y))

    # A few steps only: from farther away it would settle at another, flatter solution.
    for factor, steps, change in ((0.5, 100, 0.5), (0.97, 100, 0.5), (1.03, 100, 2.0), (3.0, 8, 2.0)):
        after = error(explicit(x, y, F, factor * limit, [slice(None)] * steps, start, P))
        assert (after < change * error(start)) == (factor < 1), (factor, after)


def test_beyond_its_limit_training_from_zero_diverges_and_says_when() -> None:
    x, y, F = problem()
    limit = linear.train(x, y, feedback=F, lr=0.03, epochs=3000).stability_limit(x)
    assert linear.train(x, y, feedback=F, lr=0.5 * limit, epochs=3000).losses[-1] < 1e-6
    with pytest.raises(DivergenceError, match=r"training diverged after \d+ steps; lower lr=") as stop:
        linear.train(x, y, feedback=F, lr=3 * limit, epochs=500)
    assert stop.value.time > 0
    assert isinstance(stop.value.state, linear.State)
    assert all(np.isfinite(A).all() for A in stop.value.state.alignment_matrices)
