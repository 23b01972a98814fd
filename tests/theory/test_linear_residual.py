"""Residual linear networks: the reduced training against DFA itself, and own against shared feedback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import feedalign as fa
from feedalign.errors import ArgumentError, DivergenceError
from feedalign.theory import linear

Array = NDArray[np.float64]
KINDS = ("own", "shared", "partly shared")


def problem(n: int = 6, C: int = 3, samples: int = 12, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, n)) / np.sqrt(samples)
    return x, x @ rng.standard_normal((n, C)) / np.sqrt(n)


def feedback(kind: str, width: int = 9, C: int = 3, blocks: int = 3) -> list[Array]:
    own = linear.draw_feedback([width] * (blocks + 1), C, np.random.default_rng(1))
    return {"own": own, "shared": own[:1] * (blocks + 1), "partly shared": [own[i % 2] for i in range(blocks + 1)]}[
        kind
    ]


def orthonormal(width: int, C: int, matrices: int) -> list[Array]:
    """Matrices whose columns are orthonormal, and orthogonal to those of the others."""
    q = np.linalg.qr(np.random.default_rng(2).standard_normal((width, matrices * C)))[0]
    return [q[:, i * C : (i + 1) * C] for i in range(matrices)]


class Branch(nn.Module):
    """h + W h."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.linear(h)
        return out


def loss_fn(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum() / 2


def trained_by_dfa(x: Array, y: Array, F: list[Array], lr: float, steps: int) -> fa.DFA:
    """The network itself, in float64 from zero weights, trained by `fa.DFA` with these matrices."""
    width = len(F[0])
    parts = [nn.Linear(x.shape[1], width, bias=False), *(Branch(width) for _ in F[1:])]
    model = nn.Sequential(*parts, nn.Linear(width, y.shape[1], bias=False)).double()
    net = fa.DFA(model, feedback=fa.feedback.Gaussian())
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for matrix, given in zip(net.feedback_matrices.values(), F, strict=True):
            matrix.copy_(torch.from_numpy(given))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(net(inputs), targets).backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("width", [2, 9, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_reduced_training_is_dfa_on_the_network_itself(kind: str, width: int) -> None:
    """Weak alignment is exact after every step, also where the stream is narrower than the error."""
    x, y = problem()
    F = feedback(kind, width)
    run = linear.train_residual(x, y, feedback=F, lr=0.05, steps=100)
    net = trained_by_dfa(x, y, F, 0.05, 100)
    for found, parameter in zip(run.weights(), net.model.parameters(), strict=True):
        np.testing.assert_allclose(found, parameter.detach().numpy(), rtol=0, atol=1e-11)
        assert np.abs(found).max() > 1e-3
    with torch.no_grad():
        loss = float(loss_fn(net(torch.from_numpy(x)), torch.from_numpy(y))) / len(x)
    assert run.losses[-1] == pytest.approx(loss, rel=1e-9)
    assert run.losses[0] == pytest.approx(np.square(y).sum() / 2 / len(y))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_alignment_is_what_is_measured_on_the_network(kind: str) -> None:
    x, y = problem()
    F = feedback(kind)
    run = linear.train_residual(x, y, feedback=F, lr=0.05, steps=60)
    net = trained_by_dfa(x, y, F, 0.05, 60)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    measured = fa.gradient_alignment(net, loss_fn, inputs, targets, at="point")
    with torch.no_grad():
        errors = (net(inputs) - targets).numpy()
    np.testing.assert_allclose(run.gradient_alignment(errors), list(measured.layers.values()), atol=1e-9)


def test_the_state_under_shared_feedback_is_of_the_size_of_the_output_and_grows_with_the_depth_under_own() -> None:
    x, y = problem()
    for kind, columns in (("shared", 3), ("partly shared", 6), ("own", 12)):
        run = linear.train_residual(x, y, feedback=feedback(kind), lr=0.05, steps=1)
        assert [A.shape for A in run.alignment_matrices] == [(3, 6), *[(3, columns)] * 4]
        for F, pick in zip(run.feedback, run.picks, strict=True):
            np.testing.assert_array_equal(run.basis @ pick, F)


def test_own_feedback_shares_one_unit_of_squared_cosine_out_among_the_depths() -> None:
    """Bessel's inequality, for any readout; with shared feedback a readout along F has cosine 1 at all depths."""
    rng = np.random.default_rng(3)
    F = orthonormal(40, 3, 4)
    for _ in range(50):
        readout, e = rng.standard_normal((3, 40)), rng.standard_normal(3)
        true = readout.T @ e
        cosines = [true @ matrix @ e / np.linalg.norm(true) / np.linalg.norm(e) for matrix in F]
        assert np.square(cosines).sum() <= 1
    x, y = problem()
    errors = rng.standard_normal((200, 3))
    own = linear.train_residual(x, y, feedback=F, lr=0.05, steps=400)
    assert own.readout_shares().sum() == pytest.approx(1)
    shared = linear.train_residual(x, y, feedback=F[:1] * 4, lr=0.05, steps=400)
    np.testing.assert_allclose(shared.readout_shares(), 1)
    # The first point is the embedding, with which the readout aligns first under own feedback too.
    assert (shared.gradient_alignment(errors)[1:] > own.gradient_alignment(errors)[1:] + 0.3).all()


def test_under_own_feedback_the_readout_aligns_with_the_embedding_first() -> None:
    """A_{L+1,0} grows like t² and A_{L+1,l} like t⁴, so the shares of the blocks grow like t⁴ from zero."""
    x, y = problem()
    early, later = (
        linear.train_residual(x, y, feedback=orthonormal(40, 3, 4), lr=1e-4, steps=steps).readout_shares()
        for steps in (500, 1000)
    )
    assert early[0] > 1 - 1e-3
    np.testing.assert_allclose(later[1:] / early[1:], 16, rtol=0.05)


def test_shared_feedback_conditions_every_depth_alike_and_a_plain_network_worse_with_depth() -> None:
    rng = np.random.default_rng(4)
    x = np.linalg.qr(rng.standard_normal((8, 8)))[0]  # Σ x xᵀ = 1
    y = x @ np.linalg.qr(rng.standard_normal((8, 3)))[0] @ np.diag([1, 0.7, 0.5])
    (F,) = orthonormal(40, 3, 1)
    S = (y.T @ x) @ (x.T @ y)
    run = linear.train_residual(x, y, feedback=[F] * 4, lr=1e-4, steps=100)
    for A in run.alignment_matrices[1:]:
        np.testing.assert_allclose(A / np.linalg.norm(A), S / np.linalg.norm(S), atol=1e-3)
    np.testing.assert_allclose(run.condition_numbers()[1:], np.linalg.cond(S), rtol=0.01)
    plain = linear.first_steps(y.T @ x, [F] * 4)
    found = [np.linalg.cond(A) for A in plain[1:]]
    np.testing.assert_allclose(found, np.linalg.cond(S) ** np.array([1, 2, 4, 8]), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feedback": feedback("own")[:1]}, r"got feedback of widths \[9\], expected one matrix for the embedding and"),
        ({"feedback": [np.ones((4, 3)), np.ones((5, 3))]}, r"got feedback of widths \[4, 5\], .*all of the one width"),
        ({"feedback": [np.ones((4, 2))] * 2}, r"feedback\[0\] must be an array of shape \[n, 3\]"),
        ({"y": np.ones((5, 3))}, r"y must be an array of shape \[12, C\], got shape \[5, 3\]"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_input_says_what_was_expected(change: dict[str, Any], message: str) -> None:
    x, y = problem()
    arguments: dict[str, Any] = {"x": x, "y": y, "feedback": feedback("own"), "lr": 0.1, "steps": 2, **change}
    with pytest.raises(ArgumentError, match=message):
        linear.train_residual(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_a_step_that_is_too_large_says_so_and_keeps_the_last_finite_state() -> None:
    x, y = problem()
    with pytest.raises(DivergenceError, match=r"training diverged after [0-9]+ steps; lower lr=50") as stop:
        linear.train_residual(x, y, feedback=feedback("shared"), lr=50, steps=500)
    assert isinstance(stop.value.state, list)
    assert all(np.isfinite(A).all() for A in stop.value.state)


def test_nothing_aligns_before_the_first_step_that_moves_the_readout() -> None:
    """After one step the readout is still zero, since the stream was."""
    x, y = problem()
    run = linear.train_residual(x, y, feedback=feedback("own"), lr=0.1, steps=1)
    assert np.isnan(run.gradient_alignment(y)).all()
    assert np.isnan(run.readout_shares()).all()
    with pytest.raises(ArgumentError, match=r"errors must be an array of shape \[samples, 3\], got shape \[12, 2\]"):
        run.gradient_alignment(y[:, :2])
