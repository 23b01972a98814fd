"""Feedback recipes: shapes, scales, orthogonality, and randomness from the given generator alone."""

from __future__ import annotations

import math

import pytest
import torch

from feedalign import feedback

RECIPES = [feedback.Gaussian(), feedback.Uniform(), feedback.Orthogonal()]


def draw(recipe: feedback.Feedback, features: int, outputs: int, seed: int = 0) -> torch.Tensor:
    return recipe.draw(features, outputs, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("recipe", RECIPES)
def test_columns_have_length_about_one_whatever_the_width(recipe: feedback.Feedback) -> None:
    expected = 1 / math.sqrt(3) if isinstance(recipe, feedback.Uniform) else 1.0
    for features in (100, 4000):
        F = draw(recipe, features, 10)
        assert F.shape == (features, 10)
        # The squared length of 10 columns together has a relative standard deviation of at most √(2/(10·features)).
        mean_square = float(F.square().sum()) / 10
        assert mean_square == pytest.approx(expected**2, rel=5 * math.sqrt(2 / (10 * features)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_generator_decides_and_the_global_one_is_left_alone(recipe: feedback.Feedback) -> None:
    state = torch.get_rng_state()
    assert torch.equal(draw(recipe, 7, 3), draw(recipe, 7, 3))
    assert not torch.equal(draw(recipe, 7, 3), draw(recipe, 7, 3, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_scales() -> None:
    assert torch.allclose(draw(feedback.Gaussian(2.0), 5, 3), 2 * math.sqrt(5) * draw(feedback.Gaussian(), 5, 3))
    uniform = draw(feedback.Uniform(0.5), 1000, 10)
    assert 0.499 < uniform.abs().max() <= 0.5
    assert torch.allclose(draw(feedback.Orthogonal(3.0), 5, 3), 3 * draw(feedback.Orthogonal(), 5, 3))


def test_orthogonal_columns_are_orthonormal_or_else_rows() -> None:
    tall, wide = draw(feedback.Orthogonal(), 9, 4), draw(feedback.Orthogonal(), 4, 9)
    assert torch.allclose(tall.T @ tall, torch.eye(4), atol=1e-6)
    assert torch.allclose(wide @ wide.T, torch.eye(4), atol=1e-6)


def test_recipes_are_values() -> None:
    assert feedback.Gaussian(0.1) == feedback.Gaussian(0.1)
    with pytest.raises(AttributeError, match="cannot assign to field 'scale'"):
        feedback.Gaussian().scale = 1.0  # type: ignore[misc]
