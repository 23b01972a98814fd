"""Feedback recipes: shapes, scales, structure, composition, and randomness from the given generator alone."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign import feedback
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.theory import convolution

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


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_the_generator_decides_and_the_global_one_is_left_alone(recipe: feedback.Feedback) -> None:
    state = torch.get_rng_state()
    assert torch.equal(draw(recipe, 40, 10), draw(recipe, 40, 10))
    assert not torch.equal(draw(recipe, 40, 10), draw(recipe, 40, 10, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


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


def test_arguments_are_checked() -> None:
    for density in (0.0, 1.5):
        with pytest.raises(ArgumentError, match="is no probability in"):
            feedback.Sparse(density)
    with pytest.raises(ArgumentError, match="rank=0 must be a whole number of at least 1"):
        feedback.LowRank(0)
    for channels in (0, 2.5, {"1": 0}):
        with pytest.raises(ArgumentError, match="must be whole numbers of at least 1"):
            feedback.Channelwise(channels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "recipe",
    [feedback.Sparse, feedback.LowRank, feedback.Channelwise, feedback.Shared, feedback.Smooth, feedback.Toeplitz],
)
def test_a_base_must_be_a_recipe(recipe: Any) -> None:
    for base in (None, feedback.Gaussian, 0.5):
        with pytest.raises(ArgumentError, match=f"base={re.escape(repr(base))} is no recipe"):
            recipe(base=base)


@pytest.mark.parametrize("recipe", [feedback.LowRank, feedback.Channelwise, feedback.Shared, feedback.Smooth])
def test_the_network_s_own_matrix_cannot_be_drawn_at_another_size(recipe: Any) -> None:
    with pytest.raises(ArgumentError, match="would here be drawn at other sizes"):
        recipe(base=feedback.Aligned())


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        (feedback.Gaussian(float("nan")), "not finite"),
        (feedback.Orthogonal(float("inf")), "not finite"),
        (feedback.FromArray(torch.ones(6, 3, dtype=torch.complex64)), "complex"),
    ],
)
def test_a_matrix_is_of_finite_real_numbers(recipe: feedback.Feedback, fault: str) -> None:
    with pytest.raises(ArgumentError, match=f"gave '1' a matrix that is {fault}"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=recipe)


def test_a_recipe_that_draws_another_shape_is_told() -> None:
    class Wrong:
        def draw(self, features: int, outputs: int, generator: torch.Generator) -> torch.Tensor:
            return torch.zeros(outputs, features)

    with pytest.raises(FeedbackShapeError, match=r"gave '1' a matrix of shape \(3, 6\), expected \(6, 3\)"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=Wrong())


def image_net() -> nn.Sequential:
    return fa.networks.ConvNet((3, 12, 12), (4, 5, 6), seed=1)


def matrices(recipe: feedback.Feedback, seed: int = 0, model: nn.Module | None = None) -> dict[str, torch.Tensor]:
    x = torch.zeros(1, 3, 12, 12)
    return fa.DFA(
        image_net() if model is None else model, feedback=recipe, seed=seed, example_input=x
    ).feedback_matrices


def test_smooth_with_one_mode_is_channelwise() -> None:
    for one, other in zip(
        matrices(feedback.Smooth(1)).values(), matrices(feedback.Channelwise()).values(), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_smooth_with_every_mode_has_as_many_free_numbers_as_its_base() -> None:
    F = matrices(feedback.Smooth(100))["0"]
    spread = (F.T @ F - torch.eye(10)).abs().max()
    assert torch.linalg.matrix_rank(F.reshape(4, 36, 10).movedim(0, 1).flatten(1)) == 36
    assert spread < 6 / math.sqrt(len(F))


@pytest.mark.parametrize("modes", [2, 3])
def test_smooth_feedback_lies_in_the_lowest_cosine_modes_of_each_channel(modes: int) -> None:
    F = matrices(feedback.Smooth(modes))["0"].reshape(4, 6, 6, 10)
    waves = torch.cos(torch.outer(torch.arange(6) + 0.5, torch.arange(6)) * (math.pi / 6))
    coefficients = torch.einsum("cyxo,yi,xj->cijo", F, waves, waves)
    assert coefficients[:, :modes, :modes].abs().min() > 1e-4
    coefficients[:, :modes, :modes] = 0
    assert coefficients.abs().max() < 1e-5
    assert float(F.square().sum()) / 10 == pytest.approx(1, rel=5 * math.sqrt(2 / (10 * 4 * modes**2)))


def test_fitted_feedback_is_the_theory_s_for_the_model_s_convolutions() -> None:
    model = image_net()
    geometries = [
        convolution.Geometry.of(model.get_submodule(name), shape)
        for name, shape in (("1.0", (4, 6, 6)), ("2.0", (5, 3, 3)))
    ]
    kernels = [model.get_submodule(name).weight.detach().numpy() for name in ("1.0", "2.0")]  # type: ignore[operator]
    for recipe, expected in (
        (feedback.Toeplitz(), convolution.optimal_feedback(geometries, 10, np.random.default_rng(3))),
        (feedback.FromMask(), convolution.mask_feedback(geometries, 10, np.random.default_rng(3))),
        (feedback.FromWeights(), convolution.weight_feedback(kernels, geometries, 10)),
    ):
        found = matrices(recipe, seed=3, model=image_net())
        assert list(found) == ["0", "1", "2"]
        for matrix, of_theory in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(matrix, torch.as_tensor(of_theory, dtype=torch.float32), rtol=1e-4, atol=1e-6)


def test_fitted_feedback_leaves_points_without_convolutions_to_its_base() -> None:
    model = nn.Sequential(
        nn.Sequential(*list(image_net())[:3]), nn.Sequential(nn.Flatten(), nn.Linear(24, 8)), nn.Linear(8, 10)
    )
    drawn = matrices(feedback.Toeplitz(feedback.Rademacher()), model=model)
    assert set(drawn["1"].abs().flatten().tolist()) == {float(torch.tensor(1 / math.sqrt(8)))}
    # Between the points "0" and "1" stands a dense layer, and below "0" nothing is a point.
    assert set(drawn["0"].abs().flatten().tolist()) == {float(torch.tensor(1 / math.sqrt(24)))}


@pytest.mark.parametrize(
    "recipe", [feedback.Smooth(), feedback.Toeplitz(), feedback.FromMask(), feedback.FromWeights()]
)
def test_recipes_for_images_are_refused_where_there_is_none(recipe: feedback.Feedback) -> None:
    with pytest.raises(ArgumentError, match=rf"{type(recipe).__name__}\(\) needs the (shape|model)"):
        draw(recipe, 12, 3)


def test_smooth_feedback_of_a_flat_point_is_refused() -> None:
    with pytest.raises(FeedbackShapeError, match="point '1' has 5 features on one axis, so their positions cannot"):
        fa.DFA(fa.networks.MLP([4, 5, 3]), feedback=feedback.Smooth())
    with pytest.raises(ArgumentError, match="modes=0 must be a whole number of at least 1"):
        feedback.Smooth(0)
