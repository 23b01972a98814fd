"""Deep linear networks: reduced dynamics against explicit ones, the predictions, and the figures of the theory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import sqrtm

import feedalign as fa
from feedalign.errors import ArgumentError, DivergenceError
from feedalign.streams import numpy_generator
from feedalign.theory import linear

Array = NDArray[np.float64]


def problem(n: int = 6, C: int = 3, samples: int = 12, widths: tuple[int, ...] = (9, 8, 7), seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, n)) / np.sqrt(samples)  # so that Σ x xᵀ is about the identity
    return x, x @ rng.standard_normal((n, C)) / np.sqrt(n), linear.draw_feedback(widths, C, rng)


def explicit(
    x: Array, y: Array, F: list[Array], lr: float, batches: list[Any], weights: list[Array], P: Array | None = None
) -> list[Array]:
    """DFA on the weights themselves."""
    weights = [W.copy() for W in weights]
    for batch in batches:
        layers = [x[batch]]
        for W in weights:
            layers.append(layers[-1] @ W.T)
        e = layers[-1] - y[batch]
        sent = e if P is None else e @ P.T
        signals = [*(sent @ matrix.T for matrix in F), e]
        for W, signal, below in zip(weights, signals, layers[:-1], strict=True):
            W -= lr * signal.T @ below
    return weights


def zero_weights(x: Array, y: Array, F: list[Array]) -> list[Array]:
    sizes = [x.shape[1], *(len(matrix) for matrix in F), y.shape[1]]
    return [np.zeros((above, below)) for below, above in itertools.pairwise(sizes)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(1, 9), st.booleans(), st.integers(0, 2**20),
)  # fmt: skip
def test_reduced_training_is_explicit_training(
    n: int, C: int, samples: int, widths: list[int], batch_size: int, conditioned: bool, seed: int
) -> None:
    """Any widths, narrow ones too, any batches and the last one shorter; weak alignment stays exact."""
    x, y, F = problem(n, C, samples, tuple(widths), seed)
    P = np.random.default_rng(seed).standard_normal((C, C)) if conditioned else None
    batches = [slice(begin, begin + batch_size) for begin in range(0, samples, batch_size)] * 5
    expected = explicit(x, y, F, 0.02, batches, zero_weights(x, y, F), P)
    run = linear.train(x, y, feedback=F, lr=0.02, epochs=5, batch_size=batch_size, conditioning=P)
    scale = max(1.0, *(np.abs(W).max() for W in expected))
    for found, W in zip(run.weights(), expected, strict=True):
        np.testing.assert_allclose(found, W, rtol=0, atol=1e-10 * scale)
    for W, residual in zip(expected, linear.residuals(expected, F), strict=True):
        assert residual < 1e-8 or not W.any()


def test_shuffled_batches_are_those_of_the_seed() -> None:
    x, y, F = problem()
    rng = numpy_generator(4, "order")
    batches = [order[i : i + 5] for order in (rng.permutation(12), rng.permutation(12)) for i in (0, 5, 10)]
    expected = explicit(x, y, F, 0.05, batches, zero_weights(x, y, F))
    run = linear.train(x, y, feedback=F, lr=0.05, epochs=2, batch_size=5, shuffle_seed=4)
    for found, W in zip(run.weights(), expected, strict=True):
        np.testing.assert_allclose(found, W, atol=1e-12)


@pytest.mark.parametrize("widths", [(9,), (9, 8), (9, 8, 7)])
def test_it_agrees_with_what_is_measured_on_the_network(widths: tuple[int, ...]) -> None:
    """The same numbers from A and G as from a torch network with these weights."""
    x, y, F = problem(widths=widths)
    run = linear.train(x, y, feedback=F, lr=0.03, epochs=300)
    weights = run.weights()
    model = torch.nn.Sequential(*(torch.nn.Linear(W.shape[1], W.shape[0], bias=False) for W in weights)).double()
    net = fa.DFA(model, feedback=fa.feedback.Gaussian())
    points = list(net.feedback_matrices)
    with torch.no_grad():
        for module, W in zip(model, weights, strict=True):
            module.get_parameter("weight").copy_(torch.from_numpy(W))
        for point, matrix in zip(points, F, strict=True):
            net.feedback_matrices[point].copy_(torch.from_numpy(matrix))

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().sum() / 2

    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    gradient = fa.gradient_alignment(net, loss_fn, inputs, targets)
    np.testing.assert_allclose(run.gradient_alignment(x, y), list(gradient.layers.values()), atol=1e-9)
    np.testing.assert_allclose(run.weight_alignment(), list(fa.weight_alignment(net).layers.values()), atol=1e-9)
    conditions = [
        layer.spectrum.condition_number for layer in fa.conditioning(net, loss_fn, inputs, targets).layers.values()
    ]
    np.testing.assert_allclose(run.condition_numbers(), conditions, rtol=1e-6)
    np.testing.assert_allclose(run.predict(x), model(inputs).detach().numpy(), atol=1e-12)


def test_gradient_alignment_is_predicted_from_the_matrices_alone() -> None:
    """For errors of a given covariance, the cosine over the ensemble, by drawing it."""
    x, y, F = problem()
    run = linear.train(x, y, feedback=F, lr=0.03, epochs=300)
    rng = np.random.default_rng(1)
    half = rng.standard_normal((3, 3))
    e = rng.standard_normal((200_000, 3)) @ half.T
    weights = run.weights()
    signals: list[Array] = []
    back = e
    for W in weights[:0:-1]:
        back = back @ W
        signals.insert(0, back)
    expected = [
        ((e @ matrix.T) * true).sum() / np.linalg.norm(e @ matrix.T) / np.linalg.norm(true)
        for matrix, true in zip(F, signals, strict=True)
    ]
    np.testing.assert_allclose(run.predicted_gradient_alignment(half @ half.T), expected, atol=0.01)


def test_strong_alignment_and_orthonormal_feedback_align_gradients_perfectly() -> None:
    rng = np.random.default_rng(0)
    orthonormal, gaussian = (linear.draw_feedback((30, 30, 30), 4, rng, kind) for kind in ("orthonormal", "gaussian"))
    matrices = [rng.standard_normal((4, 8)), 2 * np.eye(4), 3 * np.eye(4), 0.5 * np.eye(4)]
    x, y = rng.standard_normal((20, 8)), rng.standard_normal((20, 4))
    perfect, other = (linear.State(matrices, F) for F in (orthonormal, gaussian))
    np.testing.assert_allclose(perfect.gradient_alignment(x, y), 1, atol=1e-12)
    np.testing.assert_allclose(perfect.predicted_gradient_alignment(), 1, atol=1e-12)
    np.testing.assert_allclose(perfect.weight_alignment(), 1, atol=1e-12)
    # Gaussian columns are orthogonal only up to 1/√n: the top layer keeps its 1, lower ones lose a little.
    found = other.gradient_alignment(x, y)
    assert found[-1] == pytest.approx(1)
    assert 0.7 < found[0] < 0.99


@pytest.mark.parametrize("conditioned", [False, True])
def test_the_first_steps_go_where_they_are_predicted_to_go(conditioned: bool) -> None:
    x, y, F = problem()
    cov_yx = y.T @ x
    P = linear.conditioner(cov_yx) if conditioned else None
    start = linear.first_steps(cov_yx, F, P)
    np.testing.assert_allclose(start[1], _unit(np.eye(3) if conditioned else cov_yx @ cov_yx.T), atol=1e-10)
    run = linear.train(x, y, feedback=F, lr=1e-7, epochs=50, conditioning=P)
    for A, direction in zip(run.alignment_matrices, start, strict=True):
        np.testing.assert_allclose(_unit(A), direction, atol=1e-3)


def _unit(matrix: Array) -> Array:
    return matrix / float(np.linalg.norm(matrix))


def test_the_population_is_the_limit_of_many_samples() -> None:
    rng = np.random.default_rng(0)
    W, half, F = rng.standard_normal((2, 5)) / 2, rng.standard_normal((5, 5)) / 2, linear.draw_feedback((9, 9), 2, rng)
    run = linear.population(half @ half.T, W, feedback=F, lr=0.02, steps=60, noise_std=0.5)
    x = rng.standard_normal((200_000, 5)) @ half.T
    y = x @ W.T + 0.5 * rng.standard_normal((len(x), 2))
    sampled = linear.train(x, y, feedback=F, lr=0.02 / len(x), epochs=60)
    np.testing.assert_allclose(run.losses, sampled.losses, rtol=0.01)
    for A, other in zip(run.alignment_matrices, sampled.alignment_matrices, strict=True):
        np.testing.assert_allclose(A, other, atol=0.02)


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


def test_how_weak_alignment_fails_from_weights_that_are_not_zero() -> None:
    """The residual grows with the scale of the start, in proportion where it is small, and is learned away only above.

    The first layer moves within F_1 alone, so that its residual is what is left of its initial weights.
    """
    x, y, F = problem(widths=(30, 30))
    rng = np.random.default_rng(1)
    directions = [rng.standard_normal(W.shape) / np.sqrt(W.shape[1]) for W in zero_weights(x, y, F)]
    ends = {}
    for scale in (1e-4, 1e-3, 1e-1, 1.0):
        start = [scale * W for W in directions]
        ends[scale] = linear.residuals(explicit(x, y, F, 0.1, [slice(None)] * 2000, start), F)
        trained = explicit(x, y, F, 0.1, [slice(None)] * 2000, start)
        outside = np.eye(30) - F[0] @ np.linalg.pinv(F[0])
        np.testing.assert_allclose(outside @ trained[0], outside @ start[0], atol=1e-10)
    np.testing.assert_allclose(ends[1e-3] / ends[1e-4], 10, rtol=0.05)
    assert (ends[1e-3] < 0.01).all()
    assert (np.diff([ends[scale] for scale in (1e-3, 1e-1, 1.0)], axis=0) > 0).all()
    assert ends[1.0].max() > 0.8


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones(3)}, r"x must be an array of shape \[samples, n_0\], got shape \[3\]"),
        ({"y": np.ones((5, 3))}, r"y must be an array of shape \[12, C\], got shape \[5, 3\]"),
        ({"y": np.full((12, 3), np.nan)}, r"y must hold finite numbers only, got nan at y\[0, 0\]"),
        ({"feedback": []}, "feedback is empty"),
        ({"feedback": [np.ones((4, 2))]}, r"feedback\[0\] must be an array of shape \[n, 3\], got shape \[4, 2\]"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": np.nan}, "lr must be a finite number above 0, got nan"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"conditioning": np.eye(2)}, r"conditioning must be an array of shape \[3, 3\]"),
        ({"record": [9]}, "record=9 is no epoch of the training; expected 0 to 2"),
    ],
)
def test_bad_input_says_what_was_expected(change: dict[str, Any], message: str) -> None:
    x, y, F = problem()
    arguments: dict[str, Any] = {"x": x, "y": y, "feedback": F, "lr": 0.1, "epochs": 2, **change}
    with pytest.raises(ArgumentError, match=message):
        linear.train(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_bad_input_of_the_others() -> None:
    _, _, F = problem()
    with pytest.raises(ArgumentError, match="cov_yx has rank 1, expected that of its 2 outputs"):
        linear.conditioner(np.ones((2, 4)))
    with pytest.raises(ArgumentError, match="symmetric and positive semi-definite"):
        linear.population(-np.eye(4), np.ones((3, 4)), feedback=F, lr=0.1, steps=2)
    with pytest.raises(ArgumentError, match="noise_std must be a finite number of at least 0, got -1"):
        linear.population(np.eye(4), np.ones((3, 4)), feedback=F, lr=0.1, steps=2, noise_std=-1)
    with pytest.raises(ArgumentError, match="3 orthonormal columns need widths of at least 3, got 2"):
        linear.draw_feedback([2], 3, np.random.default_rng(0), "orthonormal")
    with pytest.raises(ArgumentError, match="kind='other' is unknown; expected one of gaussian, orthonormal"):
        linear.draw_feedback([9], 3, np.random.default_rng(0), "other")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="got 1 weights and 3 feedback matrices"):
        linear.residuals([np.eye(3)], F)


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


def test_cosines_of_single_errors_are_those_of_the_signals_written_out() -> None:
    x, y, F = problem()
    run = linear.train(x, y, feedback=F, lr=0.01, epochs=50, conditioning=np.diag([1.0, 2.0, 3.0]))
    e = np.random.default_rng(2).standard_normal((5, 3))
    e[1] = 0
    back = e
    for W, matrix, found in zip(run.weights()[:0:-1], F[::-1], run.cosines(e)[::-1], strict=True):
        back, sent = back @ W, e * [1, 2, 3] @ matrix.T
        with np.errstate(invalid="ignore"):
            expected = (back * sent).sum(1) / np.linalg.norm(back, axis=1) / np.linalg.norm(sent, axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert np.isnan(found).tolist() == [False, True, False, False, False]
    with pytest.raises(ArgumentError, match=r"errors must be an array of shape \[samples, 3\], got shape \[5, 2\]"):
        run.cosines(e[:, :2])


def test_recorded_states_are_those_of_shorter_runs() -> None:
    x, y, F = problem()
    run = linear.train(x, y, feedback=F, lr=0.02, epochs=9, record=(0, 4, 9))
    assert run.recorded == (0, 4, 9)
    for epochs, state in zip(run.recorded[1:], run.states[1:], strict=True):
        shorter = linear.train(x, y, feedback=F, lr=0.02, epochs=epochs)
        for A, B in zip(state.alignment_matrices, shorter.alignment_matrices, strict=True):
            np.testing.assert_array_equal(A, B)
    assert run.losses[0] == pytest.approx(np.square(y).sum() / 2 / len(y))
    assert np.isnan(run.states[0].weight_alignment()).all(), "weights of zero have no angle"
