"""Theorems about alignment: they hold for every draw and need no statistics."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from feedalign.alignment import alignability
from feedalign.feedback import Channelwise, Feedback, FromArray, FromMask, Gaussian, Smooth, Toeplitz
from feedalign.networks import MLP, ConvNet, dense, locally_connected
from feedalign.rules import DFA, Backprop
from feedalign.theory import linear, shallow

SHAPE, CHANNELS, STRIDES = (2, 8, 8), (4, 6, 5), (1, 2, 2)
RECIPES = {
    "gaussian": Gaussian(),
    "channelwise": Channelwise(),
    "smooth": Smooth(2),
    "most alignable": Toeplitz(),
    "from connections": FromMask(),
}


def images(samples: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, *SHAPE, generator=generator), torch.arange(samples) % 5


def wrapped(recipe: Feedback, connect: str | int | None = None) -> DFA:
    """A convolutional net, or the same function with other connections, with the feedback drawn for the former."""
    model: nn.Module = ConvNet(SHAPE, CHANNELS, 5, stride=STRIDES, seed=1)
    drawn = DFA(model, feedback=recipe, seed=2, example_input=images(2)[0])
    matrices = FromArray(drawn.feedback_matrices)
    drawn.unwrap()
    if connect == "dense":
        model = dense(model, SHAPE)
    elif connect is not None:
        model = locally_connected(model, SHAPE, None if connect == "everywhere" else int(connect))
    return DFA(model, tuple(matrices.arrays), matrices, example_input=images(2)[0])


@pytest.mark.parametrize("connect", [None, "everywhere", "dense"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_no_training_passes_the_alignability_of_a_layer(recipe: Feedback, connect: str | None) -> None:
    """|weight alignment| ≤ alignability, before training and at every step under DFA."""
    net = wrapped(recipe, connect)
    x, y = images(20)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(10):
        for layer in alignability(net).layers.values():
            assert abs(layer.weight_alignment) <= layer.bound + 1e-6
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()


def bounds(recipe: Feedback, connect: str | int | None) -> list[float]:
    return [layer.bound for layer in alignability(wrapped(recipe, connect)).layers.values()]


@pytest.mark.parametrize("connect", [1, 2, 4, "everywhere"])
def test_sharing_does_not_change_the_alignability_of_channelwise_feedback(connect: str | int) -> None:
    """Constant feedback asks the same of every position, so a shared kernel can follow it as well as single kernels."""
    free, shared = bounds(Channelwise(), connect), bounds(Channelwise(), None)
    np.testing.assert_allclose(free, shared, rtol=0, atol=1e-6)


def test_sharing_changes_the_alignability_of_random_feedback() -> None:
    """The control of the test above."""
    free, shared = bounds(Gaussian(), "everywhere"), bounds(Gaussian(), None)
    assert free[0] > 1.5 * shared[0]


def test_less_sharing_never_lowers_the_alignability_of_random_feedback() -> None:
    """The kernels of few regions are among those of more, if the regions of more divide those of few."""
    by_regions = [bounds(Gaussian(), connect) for connect in (None, 1, 2, 4, "everywhere")]
    assert by_regions[0] == pytest.approx(by_regions[1])
    for fewer, more in itertools.pairwise(by_regions):
        assert all(after >= before - 1e-9 for before, after in zip(fewer, more, strict=True))


def test_a_dense_net_cannot_tell_in_which_places_the_rows_of_feedback_are() -> None:
    """To move rows of F is to number hidden units differently, so the net learns the same function.

    A convolutional net cannot renumber single positions: this is why only its alignment depends on the places.
    """
    x, y = images(20)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    outputs = []
    for renumber in (False, True):
        model = nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 5)).double()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
        F = torch.randn(16, 5, generator=generator, dtype=torch.float64)
        if renumber:
            F = F[order]
            with torch.no_grad():
                for name in ("1.weight", "1.bias"):
                    model.get_parameter(name).copy_(model.get_parameter(name)[order])
                model.get_parameter("3.weight").copy_(model.get_parameter("3.weight")[:, order])
        net = DFA(model, ("2",), FromArray({"2": F}), example_input=x.double())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            functional.cross_entropy(net(x.double()), y).backward()
            optimizer.step()
        outputs.append(net(x.double()).detach())
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-12)


def linear_task() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 6))
    y = x @ rng.standard_normal((6, 3)) + 0.1 * rng.standard_normal((40, 3))
    return torch.from_numpy(x), torch.from_numpy(y)


def from_zero(steps: int, lr: float) -> DFA:
    """A deep linear network after full-batch DFA from zero weights on ½|ŷ − y|², mean over samples."""
    model = MLP([6, 9, 8, 7, 3], "linear", bias=False).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    net = DFA(model, seed=4)
    x, y = linear_task()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (net(x) - y).square().sum() / len(x)).backward()
        optimizer.step()
    return net


def test_weights_from_zero_are_feedback_times_a_small_matrix_times_feedback() -> None:
    """W_l = F_l A_l F_{l−1}ᵀ with A_l of the size of the output, to rounding, after all of training."""
    net = from_zero(400, 0.01)
    x, y = linear_task()
    F = [matrix.numpy() for matrix in net.feedback_matrices.values()]
    assert functional.mse_loss(net(x), y) < 0.2 * y.square().mean()
    found = linear.train(x.numpy(), y.numpy(), feedback=F, lr=0.01 / len(x), epochs=400)
    weights = [weight.detach().numpy() for weight in net.parameters()]
    for W, small in zip(weights, found.weights(), strict=True):
        np.testing.assert_allclose(W, small, rtol=0, atol=1e-10 * np.abs(W).max())
    for W, above, below in zip(weights[1:-1], F[1:], F[:-1], strict=True):
        A = np.linalg.pinv(above) @ W @ np.linalg.pinv(below.T)
        assert A.shape == (3, 3)
        np.testing.assert_allclose(above @ A @ below.T, W, rtol=0, atol=1e-10 * np.abs(W).max())


def test_the_second_alignment_matrix_sets_out_along_the_product_of_covariances() -> None:
    """After three steps of learning rate η → 0, A_2 ∝ Σ_yx Σ_xy with an error of order η."""
    x, y = (each.numpy() for each in linear_task())
    expected = (y.T @ x) @ (x.T @ y)
    distances = []
    for lr in (1e-3, 1e-4):
        net = from_zero(3, lr)
        F = [matrix.numpy() for matrix in net.feedback_matrices.values()]
        W = list(net.parameters())[1].detach().numpy()
        A = np.linalg.pinv(F[1]) @ W @ np.linalg.pinv(F[0].T)
        distances.append(np.abs(A / np.linalg.norm(A) - expected / np.linalg.norm(expected)).max())
    assert distances[0] < 0.1
    assert distances[1] == pytest.approx(distances[0] / 10, rel=0.05)


@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_backprop_of_the_theory_knows_no_feedback(activation: str) -> None:
    """So out of all equally good solutions, it takes the one that F points to by chance only."""
    rng = np.random.default_rng(5)
    start = shallow.draw_start(np.array([0.8, 1.5]), students=2, input_dim=50, rng=rng, w_std=0.1, v_std=0.1)
    setting: dict[str, Any] = {"lr": 0.1, "times": [0.0, 20.0], "rule": "bp", "activation": activation}
    feedbacks = np.array([[1.0, 0.3], [-2.0, 5.0]])
    exact = [shallow.integrate(start, feedback=F, **setting) for F in feedbacks]
    runs = [shallow.simulate(start, feedback=F, input_dim=50, seed=6, **setting) for F in feedbacks]
    for one, other in (exact, runs):
        for name in ("Q", "R", "v"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_backprop_of_the_library_knows_no_feedback() -> None:
    x, y = linear_task()
    ends = []
    for seed in (0, 1):
        net = Backprop(MLP([6, 9, 3], "tanh", seed=7).double(), seed=seed)
        assert all(matrix.isfinite().all() for matrix in net.feedback_matrices.values())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            functional.mse_loss(net(x), y).backward()
            optimizer.step()
        ends.append([weight.detach() for weight in net.parameters()])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)
