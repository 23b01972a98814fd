"""Deep linear networks: reduced dynamics against explicit ones, and the alignment that is predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases.linear import Array, explicit, problem, zero_weights

import feedalign as fa
from feedalign.errors import ArgumentError
from feedalign.streams import numpy_generator
from feedalign.theory import linear


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
