"""Feedback recipes: scales, structure and composition of the matrices."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign import feedback
from feedalign.errors import ArgumentError, FeedbackShapeError

RECIPES: list[Any] = [
    feedback.Gaussian(),
    feedback.Uniform(),
    feedback.Rademacher(),
    feedback.Orthogonal(),
    feedback.Sparse(0.2),
    feedback.Sparse(0.5, feedback.Orthogonal()),
    feedback.LowRank(5),
    feedback.Channelwise(20),
    feedback.Channelwise(20, feedback.Sparse(0.5)),
    feedback.Shared(feedback.Uniform()),
    feedback.Conditioned(torch.eye(10)),
]
NAMES = [str(i) + type(recipe).__name__ for i, recipe in enumerate(RECIPES)]


def draw(recipe: feedback.Feedback, features: int, outputs: int, seed: int = 0) -> torch.Tensor:
    return recipe.draw(features, outputs, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_columns_have_length_about_one_whatever_the_width(recipe: feedback.Feedback) -> None:
    uniform = isinstance(recipe, feedback.Uniform) or isinstance(getattr(recipe, "base", None), feedback.Uniform)
    expected = 1 / math.sqrt(3) if uniform else 1.0
    for features in (100, 4000):
        # Independent entries: the squared length of 10 columns has a relative standard deviation of at most
        # √(2/(10·features)); where entries are repeated or of low rank, or mostly zero, of fewer free numbers.
        numbers: float = 10 * features
        if isinstance(recipe, feedback.Channelwise):
            numbers = 10 * 20 / 3
        elif isinstance(recipe, feedback.LowRank):
            numbers = 10 * 5 / 2
        elif isinstance(recipe, feedback.Sparse):
            numbers *= recipe.density / 3
        F = draw(recipe, features, 10)
        assert F.shape == (features, 10)
        assert float(F.square().sum()) / 10 == pytest.approx(expected**2, rel=5 * math.sqrt(2 / numbers))


def test_scales() -> None:
    assert torch.allclose(draw(feedback.Gaussian(2.0), 5, 3), 2 * math.sqrt(5) * draw(feedback.Gaussian(), 5, 3))
    uniform = draw(feedback.Uniform(0.5), 1000, 10)
    assert 0.499 < uniform.abs().max() <= 0.5
    assert torch.allclose(draw(feedback.Orthogonal(3.0), 5, 3), 3 * draw(feedback.Orthogonal(), 5, 3))
    assert set(draw(feedback.Rademacher(0.5), 20, 3).flatten().tolist()) == {-0.5, 0.5}


def test_orthogonal_columns_are_orthonormal_or_else_rows() -> None:
    tall, wide = draw(feedback.Orthogonal(), 9, 4), draw(feedback.Orthogonal(), 4, 9)
    assert torch.allclose(tall.T @ tall, torch.eye(4), atol=1e-6)
    assert torch.allclose(wide @ wide.T, torch.eye(4), atol=1e-6)


def test_recipes_are_values() -> None:
    assert feedback.Gaussian(0.1) == feedback.Gaussian(0.1)
    assert feedback.Sparse(0.1, feedback.Uniform()) == feedback.Sparse(0.1, feedback.Uniform())
    with pytest.raises(AttributeError, match="cannot assign to field 'scale'"):
        feedback.Gaussian().scale = 1.0  # type: ignore[misc]


def test_sparse_keeps_that_share_of_the_base() -> None:
    F = draw(feedback.Sparse(0.25, feedback.Rademacher(1.0)), 400, 100)
    # 40 000 draws: a standard error of √(0.25·0.75/40 000) = 0.002.
    assert float((F != 0).double().mean()) == pytest.approx(0.25, abs=0.01)
    assert set(F.unique().tolist()) == {-2.0, 0.0, 2.0}
    assert torch.equal(draw(feedback.Sparse(1.0), 4, 3), draw(feedback.Gaussian(), 4, 3))


def test_low_rank_has_that_rank() -> None:
    assert int(torch.linalg.matrix_rank(draw(feedback.LowRank(3), 40, 10))) == 3


def test_channelwise_is_constant_over_the_positions_of_a_channel_as_flatten_orders_them() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    x = torch.zeros(1, 1, 6, 6)
    F = fa.DFA(model, points=("1", "3"), feedback=feedback.Channelwise(), example_input=x).feedback_matrices
    for name, channels, side in (("1", 4, 4), ("3", 2, 2)):
        rows = F[name].reshape(channels, side * side, 3)
        assert torch.equal(rows, rows[:, :1].expand_as(rows))
        assert len(rows[:, 0].unique(dim=0)) == channels
    mixed = feedback.Channelwise({"4": 2})
    assert len(fa.DFA(model, feedback=mixed, example_input=x).feedback_matrices["4"].unique(dim=0)) == 2
    with pytest.raises(FeedbackShapeError, match="'4' has 8 features on one axis, so its channels cannot be told"):
        fa.DFA(model, points=("4",), feedback=feedback.Channelwise(), example_input=x)
    with pytest.raises(FeedbackShapeError, match="'4' has 8 features, which are not 3 channels"):
        fa.DFA(model, points=("4",), feedback=feedback.Channelwise(3), example_input=x)


def test_shared_points_have_rows_of_one_matrix() -> None:
    F = fa.DFA(fa.networks.MLP([4, 6, 12, 3]), feedback=feedback.Shared(), seed=3).feedback_matrices
    assert torch.allclose(F["1"], F["3"][:6] * math.sqrt(2))


def test_aligned_is_backprop_in_a_linear_network_and_waits_for_data() -> None:
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randint(3, (7,))
    model = fa.networks.MLP([5, 8, 6, 3], activation="linear").double()
    net = fa.DFA(model, feedback=feedback.Aligned())
    check = fa.check_rule(net, functional.cross_entropy, x, y)
    assert all(cosine == pytest.approx(1, abs=1e-12) for cosine in check.cosines.values())


def test_aligned_is_the_mean_jacobian_of_what_follows() -> None:
    model: Any = fa.networks.MLP([5, 8, 6, 3])
    x = torch.randn(7, 5)
    net = fa.DFA(model, feedback=feedback.Aligned(2.0), example_input=x)
    h1 = torch.tanh(model[0](x))
    slope = 1 - torch.tanh(model[2](h1)) ** 2
    expected = torch.einsum("cj,bj,ji->ic", model[4].weight, slope, model[2].weight) / 7
    torch.testing.assert_close(net.feedback_matrices["1"], 2 * expected)
    torch.testing.assert_close(net.feedback_matrices["3"], 2 * model[4].weight.T)
    nested = fa.DFA(model, feedback=feedback.Conditioned(torch.eye(3), feedback.Aligned(2.0)), example_input=x)
    torch.testing.assert_close(nested.feedback_matrices["1"], net.feedback_matrices["1"])
    with pytest.raises(ArgumentError, match="needs the network"):
        draw(feedback.Aligned(), 5, 3)


def test_conditioned_is_the_base_times_its_matrix() -> None:
    P = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    assert torch.equal(draw(feedback.Conditioned(P), 5, 2), draw(feedback.Gaussian(), 5, 2) @ P)
    with pytest.raises(FeedbackShapeError, match=r"P has shape \(2, 3\), expected a square matrix"):
        feedback.Conditioned(torch.zeros(2, 3))
    with pytest.raises(FeedbackShapeError, match=r"P is \(2, 2\), but the feedback at '1' has 3 outputs"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=feedback.Conditioned(P))


def test_arrays_go_to_the_points_they_are_named_for() -> None:
    model = fa.networks.MLP([4, 6, 5, 3])
    arrays: dict[str, Any] = {"1": torch.ones(6, 3), "3": [[1.0, 2.0, 3.0]] * 5}
    F = fa.DFA(model, feedback=feedback.FromArray(arrays)).feedback_matrices
    assert torch.equal(F["1"], arrays["1"])
    assert F["1"].data_ptr() != arrays["1"].data_ptr()
    assert F["3"][0].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(FeedbackShapeError, match=r"array for '1' has shape \(3, 6\), expected \(6, 3\)"):
        fa.DFA(model, feedback=feedback.FromArray({"1": torch.ones(3, 6)}))
    with pytest.raises(FeedbackShapeError, match=r"no array for '3', only for '1'; add one of shape \(5, 3\)"):
        fa.DFA(model, feedback=feedback.FromArray({"1": torch.ones(6, 3)}))
    assert torch.equal(draw(feedback.FromArray(torch.ones(2, 3)), 2, 3), torch.ones(2, 3))
