"""What a recipe for feedback is, and what it can be told of the place a matrix is for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.geometry import Geometry


class Feedback(Protocol):
    """A recipe for feedback matrices.

    Where it must know more than two sizes, it also has `draw_at(place, generator)`, which is then called instead; and
    `needs_jacobian = True` if it reads `place.jacobian`.
    """

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs], from `generator` alone: same generator state, same matrix.

        It comes in PyTorch's default dtype on the CPU; a rule moves and casts it to its model.
        """
        ...


@dataclass(frozen=True, eq=False)
class Convolution:
    """The one convolution from one point to the next, or a layer cut from one.

    Attributes:
        below: name of the point it reads.
        above: name of the point it gives.
        kernel: [o, i, height, width], or [regions, o, i, height, width].
        geometry: its shape.
    """

    below: str
    above: str
    kernel: Tensor
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class Place:
    """What a matrix is for.

    Attributes:
        name: dotted name of the point (under a sequential rule: of the layer).
        features: numbers per sample there.
        outputs: C (under a sequential rule: the layer's own outputs).
        shape: of one sample there, channels first; `features` is its product.
        widest: the largest `features` of the model's places.
        seed: of the rule's feedback.
        jacobian: mean over a batch of ∂output/∂features, [outputs, features]; None unless the recipe asked for it.
        convolutions: of the model between its points, from the bottom (under a sequential rule: none).
    """

    name: str
    features: int
    outputs: int
    shape: tuple[int, ...]
    widest: int
    seed: int
    jacobian: Tensor | None = None
    convolutions: tuple[Convolution, ...] = ()


def draw_at(recipe: Feedback, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
    """Draw the matrix of a place, whether the recipe asks for its sizes alone or for more.

    Raises:
        FeedbackShapeError: the recipe gave a matrix of another shape.
        ArgumentError: the matrix is complex, or not finite.
    """
    at = getattr(recipe, "draw_at", None)
    matrix: Tensor = at(place, generator) if at else recipe.draw(place.features, place.outputs, generator)
    if tuple(matrix.shape) != (place.features, place.outputs):
        raise FeedbackShapeError(
            f"{recipe!r} gave {place.name!r} a matrix of shape {tuple(matrix.shape)}, expected "
            f"{(place.features, place.outputs)}, features by outputs"
        )
    if matrix.is_complex() or not matrix.isfinite().all():
        what = "complex" if matrix.is_complex() else "not finite"
        raise ArgumentError(
            f"{recipe!r} gave {place.name!r} a matrix that is {what}; feedback is of finite real numbers"
        )
    return matrix


def check_recipe(recipe: object, what: str = "feedback", *, resized: bool = False) -> None:
    """Raise ArgumentError if `recipe` is none; or if it is to be `resized` and is the network's own at a place."""
    if isinstance(recipe, type) or not callable(getattr(recipe, "draw", None)):
        raise ArgumentError(
            f"{what}={recipe!r} is no recipe; give an instance such as feedalign.feedback.Gaussian(), or any object "
            "with draw(features, outputs, generator)"
        )
    if resized and getattr(recipe, "needs_jacobian", False):
        raise ArgumentError(
            f"{what}={recipe!r} is the network's own at each point, and would here be drawn at other sizes; give a "
            "recipe that is drawn at random"
        )


def is_count(number: object) -> bool:
    """Whether this is a whole number of at least 1."""
    return isinstance(number, (int, np.integer)) and bool(number >= 1)


def needs_jacobian(recipe: Feedback) -> bool:
    """Whether the recipe reads `Place.jacobian`, so that data must be seen before it can draw."""
    return bool(getattr(recipe, "needs_jacobian", False))


def default_scale(features: int) -> float:
    """Return the standard deviation that gives a column of this many entries a length of about one."""
    return 1 / math.sqrt(features)
