"""Simulation: both methods share one law, and that law has the order-parameter equations as its limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from feedalign.errors import ArgumentError
from feedalign.theory import shallow
from feedalign.theory.shallow.reduced import chi_square

MakeStart = Callable[..., shallow.OrderParameters]

F = np.array([0.7, -1.1])


def ends(trajectory: shallow.Trajectory) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Final Q, R, v of every seed, [seeds, numbers]; the upper triangle of Q only, since it is symmetric."""
    seeds, K = len(trajectory.Q), trajectory.v.shape[-1]
    upper = trajectory.Q[:, -1][:, *np.triu_indices(K)]
    return np.hstack([upper, trajectory.R[:, -1].reshape(seeds, -1), trajectory.v[:, -1]])


@pytest.mark.parametrize("input_dim", [6, 20])
@pytest.mark.parametrize("rule", ["dfa", "bp"])
@pytest.mark.parametrize(("activation", "noise_std"), [("erf", 0.0), ("erf", 0.5), ("relu", 0.5)])
def test_explicit_and_reduced_agree_in_law(
    make_start: MakeStart, input_dim: int, rule: Any, activation: str, noise_std: float
) -> None:
    """Means, variances and covariances of 4000 runs each, at N so small that the chain is far from its limit."""
    runs = 4000
    kwargs: dict[str, Any] = {
        "feedback": F, "lr": 0.4, "times": [3.0], "input_dim": input_dim, "rule": rule, "noise_std": noise_std,
        "activation": activation,
    }  # fmt: skip
    start = make_start()
    explicit = ends(shallow.simulate(start, seeds=range(runs), method="explicit", **kwargs))
    reduced = ends(shallow.simulate(start, seeds=range(runs, 2 * runs), method="reduced", **kwargs))
    # One family of comparisons: means of all numbers and of all products of their deviations. The bound on the
    # largest t-value is Bonferroni's at 0.1 % for the family: a right program fails for one choice of seeds in 1000.
    moments = [
        np.hstack(
            [
                sample,
                np.einsum("ri,rj->rij", sample - sample.mean(0), sample - sample.mean(0)).reshape(runs, -1),
            ]
        )
        for sample in (explicit, reduced)
    ]
    t = stats.ttest_ind(*moments, equal_var=False).statistic
    assert np.abs(t).max() < stats.norm.isf(0.0005 / t.size)
    assert (explicit.std(0) > 0.01).any()  # the law is not a point: variances are really compared


@pytest.mark.parametrize("activation", ["erf", "relu", "linear"])
def test_simulation_approaches_the_equations_like_one_over_root_n(make_start: MakeStart, activation: str) -> None:
    start = make_start()
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.3, "times": [5.0], "activation": activation}
    limit = shallow.integrate(start, **kwargs)
    exact = np.hstack([limit.Q[-1][np.triu_indices(2)], limit.R[-1].ravel(), limit.v[-1]])
    dims = np.array([50, 200, 800, 3200])
    rms = [
        np.sqrt(np.mean((ends(shallow.simulate(start, seeds=range(200), input_dim=n, **kwargs)) - exact) ** 2))
        for n in dims
    ]
    slope = np.polyfit(np.log(dims), np.log(rms), 1)[0]
    # 200 seeds know each spread to 5 %, which makes the fitted slope's standard error about 0.02.
    assert slope == pytest.approx(-0.5, abs=0.08)


@pytest.mark.parametrize("activation", ["erf", "relu", "linear"])
@pytest.mark.parametrize("lr", [0.1, 0.5])
def test_mean_over_seeds_agrees_with_the_equations_within_its_standard_error(
    make_start: MakeStart, activation: str, lr: float
) -> None:
    """At N = 20 000, where the bias of order 1/N is far below the standard error of 30 seeds; with noise."""
    start = make_start()
    kwargs: dict[str, Any] = {
        "feedback": F, "lr": lr, "times": [2.0, 10.0], "noise_std": 0.3, "activation": activation,
    }  # fmt: skip
    limit = shallow.integrate(start, **kwargs)
    runs = shallow.simulate(start, seeds=range(30), input_dim=20_000, **kwargs)
    for name in ("Q", "R", "v", "generalisation_error", "overlap"):
        values, exact = getattr(runs, name), getattr(limit, name)
        z = (values.mean(0) - exact) / (values.std(0, ddof=1) / np.sqrt(30))
        assert np.abs(z).max() < stats.t.isf(0.0005 / z.size, 29), name


@pytest.mark.parametrize("activation", ["erf", "relu", "linear"])
@pytest.mark.parametrize("rule", ["dfa", "bp"])
@pytest.mark.parametrize(("K", "M"), [(1, 3), (4, 2)])
def test_other_sizes_and_rules_agree_with_the_equations(
    make_start: MakeStart, activation: str, rule: Any, K: int, M: int
) -> None:
    """K < M and K > M, a readout that learns at a tenth of the rate, noise; N = 20 000."""
    start = make_start(K=K, M=M)
    kwargs: dict[str, Any] = {
        "feedback": np.linspace(-0.8, 0.6, K), "lr": 0.3, "lr_readout": 0.03, "times": [4.0], "noise_std": 0.3,
        "activation": activation, "rule": rule,
    }  # fmt: skip
    limit = shallow.integrate(start, **kwargs)
    runs = shallow.simulate(start, seeds=range(20), input_dim=20_000, **kwargs)
    for name in ("Q", "R", "v", "generalisation_error"):
        values, exact = getattr(runs, name), getattr(limit, name)
        z = (values.mean(0) - exact) / (values.std(0, ddof=1) / np.sqrt(20))
        assert np.abs(z).max() < stats.t.isf(0.0005 / z.size, 19), name


@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_batches_agree_with_the_equations(make_start: MakeStart, activation: str) -> None:
    """An average over 8 inputs at lr = 2: without the division of its square by 8 the equations would be far off."""
    start = make_start()
    kwargs: dict[str, Any] = {"feedback": F, "lr": 2.0, "times": [3.0], "activation": activation}
    limit = shallow.integrate(start, **kwargs, batch_size=8).Q[-1]
    runs = shallow.simulate(start, **kwargs, batch_size=8, seeds=range(20), input_dim=2000, method="explicit").Q[:, -1]
    standard_error = runs.std(0, ddof=1) / np.sqrt(20)
    assert (np.abs(runs.mean(0) - limit) < stats.t.isf(0.0005 / 4, 19) * standard_error).all()
    assert np.abs(shallow.integrate(start, **kwargs).Q[-1] - limit).max() > 50 * standard_error.max()


@pytest.mark.parametrize(("method", "batch_size"), [("reduced", 1), ("explicit", 1), ("explicit", 3)])
def test_threads_and_progress_change_nothing(make_start: MakeStart, method: Any, batch_size: int) -> None:
    kwargs: dict[str, Any] = {
        "feedback": F, "lr": 0.3, "times": [0.5, 7.0], "input_dim": 60, "seeds": range(5), "noise_std": 0.1,
        "method": method, "batch_size": batch_size,
    }  # fmt: skip
    calls: list[tuple[int, int]] = []
    plain = shallow.simulate(make_start(), **kwargs, threads=4)
    watched = shallow.simulate(
        make_start(), **kwargs, threads=1, progress=lambda done, total: calls.append((done, total))
    )
    np.testing.assert_array_equal(watched.Q, plain.Q)
    np.testing.assert_array_equal(watched.v, plain.v)
    assert calls[-1] == (5 * 420, 5 * 420)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize("method", ["explicit", "reduced"])
def test_start_seeds_and_times(make_start: MakeStart, method: Any) -> None:
    start = make_start(K=3, M=2)
    kwargs: dict[str, Any] = {"feedback": [0.7, -1.1, 0.1], "lr": 0.3, "input_dim": 30, "method": method}
    batch = shallow.simulate(start, times=[0.0, 0.51, 2.0], seeds=[0, 5], **kwargs)
    np.testing.assert_allclose(batch.Q[:, 0], np.stack([start.Q, start.Q]), atol=1e-12)
    np.testing.assert_allclose(batch.R[:, 0], np.stack([start.R, start.R]), atol=1e-12)
    np.testing.assert_allclose(batch.times, [0.0, 0.5, 2.0])  # 0.51 · 30 steps is rounded to 15, and says so
    assert batch.overlap.shape == batch.generalisation_error.shape == (2, 3)
    for i, seed in enumerate([0, 5]):
        alone = shallow.simulate(start, times=[0.0, 0.51, 2.0], seed=seed, **kwargs)
        np.testing.assert_array_equal(batch.Q[i], alone.Q)
        np.testing.assert_array_equal(batch.v[i], alone.v)
    assert (batch.v[0, -1] != batch.v[1, -1]).all()


@pytest.mark.parametrize("activation", ["erf", "relu", "linear"])
@pytest.mark.parametrize("method", ["explicit", "reduced"])
def test_degenerate_starts_stay_finite(method: Any, activation: str) -> None:
    """Zero students, identical students, and a student that already is its teacher."""
    for Q, R in [
        (np.zeros((2, 2)), np.zeros((2, 2))),
        (np.ones((2, 2)), np.full((2, 2), 0.5)),
        (np.eye(2), np.eye(2)),
    ]:
        start = shallow.OrderParameters(Q=Q, R=R, T=np.eye(2), v=np.array([0.3, 0.4]), A=np.array([1.0, 0.5]))
        run = shallow.simulate(
            start, feedback=F, lr=0.2, times=[0.0, 10.0], input_dim=20, method=method, activation=activation
        )
        np.testing.assert_allclose(run.Q[0], Q, atol=1e-7)
        assert np.isfinite(run.generalisation_error).all()
        np.linalg.cholesky(run.final.covariance + 1e-9 * np.eye(4))


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 496])
def test_chi_square_has_its_law(degrees: int) -> None:
    rng = np.random.default_rng(degrees)
    draws = np.array([chi_square(rng, degrees) for _ in range(20_000)])
    assert stats.kstest(draws, stats.chi2(degrees).cdf).pvalue > 1e-3


def test_smallest_input_dimension_works_and_one_less_is_refused(make_start: MakeStart) -> None:
    shallow.simulate(make_start(), feedback=F, lr=0.1, times=[1.0], input_dim=5)
    for input_dim in (4, 5.5):
        with pytest.raises(
            ArgumentError,
            match=r"input_dim must be a whole number of at least 5.*, got (4|5.5); K \+ M \+ 1 directions are needed",
        ):
            shallow.simulate(make_start(), feedback=F, lr=0.1, times=[1.0], input_dim=input_dim)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "exact"}, "method='exact' is unknown; expected one of reduced, explicit"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        (
            {"seed": None},
            "seed must be a whole number of at least .*, got None",
        ),  # numpy would take it for "any", never the same again
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": 3}, "seeds must be a sequence of whole numbers, got 3; give a list of whole numbers"),
        ({"seeds": [0, 0.5]}, r"seeds\[1\] must be a whole number of at least .*, got 0.5"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"threads": 1.5}, "threads must be a whole number of at least .*, got 1.5"),
        ({"batch_size": 4}, "batch_size=4 needs method='explicit'"),
        ({"input_dim": np.nan}, r"input_dim must be a whole number of at least 5.*, got nan"),
        ({"times": [1e15]}, r"times reach to 1e\+15, which is 2e\+16 steps"),
    ],
)
def test_bad_simulations_say_what_was_expected(make_start: MakeStart, change: dict[str, Any], message: str) -> None:
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.1, "times": [1.0], "input_dim": 20, **change}
    with pytest.raises(ArgumentError, match=message):
        shallow.simulate(make_start(), **kwargs)


def test_a_batch_has_no_single_final_state(make_start: MakeStart) -> None:
    batch = shallow.simulate(make_start(), feedback=F, lr=0.1, times=[1.0], input_dim=20, seeds=[0, 1])
    with pytest.raises(ArgumentError, match="no single final state"):
        _ = batch.final


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            {"batch_size": 10**10},
            r"the inputs of one step with batch_size=10000000000 need .* GB, and this",
        ),
        ({"seeds": range(10**12)}, "seeds must be a sequence of at most 10,000,000 whole numbers"),
    ],
)
def test_what_does_not_fit_the_memory_is_refused(odd: dict[str, Any], message: str) -> None:
    start = shallow.OrderParameters(np.eye(2) / 2, np.zeros((2, 2)), np.eye(2), np.array([0.5, -0.2]), np.ones(2))
    arguments: dict[str, Any] = {"seeds": [0], "batch_size": 2, **odd}
    with pytest.raises(ArgumentError, match=message):
        shallow.simulate(start, feedback=[1.0, -1.0], lr=0.1, times=[0.1], input_dim=60, method="explicit", **arguments)
