"""Feedback for convolutions: smooth over positions, or computed for a chain of layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import feedalign as fa
from feedalign import feedback, streams
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.theory import convolution


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

    def of_chain() -> np.random.Generator:
        return streams.numpy_generator(3, "fitted feedback", "0")

    for recipe, expected in (
        (feedback.Toeplitz(), convolution.optimal_feedback(geometries, 10, of_chain())),
        (feedback.FromMask(), convolution.mask_feedback(geometries, 10, of_chain())),
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
        recipe.draw(12, 3, torch.Generator())


def test_smooth_feedback_of_a_flat_point_is_refused() -> None:
    with pytest.raises(FeedbackShapeError, match="point '1' has 5 features on one axis, so their positions cannot"):
        fa.DFA(fa.networks.MLP([4, 5, 3]), feedback=feedback.Smooth())


def test_the_base_of_fitted_feedback_may_need_the_network() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    net = fa.DFA(model, feedback=feedback.Toeplitz(feedback.Aligned()), example_input=torch.zeros(2, 4))
    torch.testing.assert_close(net.feedback_matrices["1"], model.get_parameter("2.weight").detach().T)
