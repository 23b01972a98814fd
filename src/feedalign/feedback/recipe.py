"""What a recipe for feedback is, and what a recipe can be told of the place that a matrix is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import shown
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.geometry import Geometry


class Feedback(Protocol):
    """A recipe for feedback matrices.

    A recipe may have three more attributes:

    * `draw_at(place, generator)`, for a recipe that must know more than two sizes. It is called instead of `draw`.
    * `needs_jacobian = True`, for a recipe that reads `place.jacobian`.
    * `needs_place = True`, for a recipe whose `draw` refuses because two sizes do not tell enough.
    """

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs].

        The numbers come from `generator` alone: the same state of the generator gives the same matrix. F is on the
        CPU, in float32 or, where F is computed and not drawn, in the precision of the computation. PyTorch's default
        device and default dtype change nothing. A rule moves F to the device of its model and casts F.

        Args:
            features: number of rows.
            outputs: number of columns.
            generator: a generator on the CPU.
        """
        ...


@dataclass(frozen=True, eq=False)
class Convolution:
    """The one convolution between two points, or a layer that is cut from a convolution.

    Attributes:
        below: name of the point that the convolution reads.
        above: name of the point that the convolution computes.
        kernel: [o, i, height, width], or [regions, o, i, height, width].
        geometry: shape of the convolution.
    """

    below: str
    above: str
    kernel: Tensor
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class Place:
    """The place that a matrix is for.

    Attributes:
        name: dotted name of the point (under a sequential rule: of the layer).
        features: numbers per sample at the place.
        outputs: C, the outputs of the model (under a sequential rule: of the layer).
        shape: shape of one sample at the place, channels first; `features` is the product of its sizes.
        widest: the largest `features` of the model's places.
        seed: seed of the rule's feedback.
        jacobian: mean over a batch of ∂output/∂features, [outputs, features]; None unless the recipe asked for it.
        convolutions: the convolutions between the model's points, from the bottom (under a sequential rule: none).
        tokens: whether a sample is known to be tokens, with the features of a token on the last axis.
        widest_token: the largest last axis of the samples at the model's places.
        summed: how many of the output's batch axes the place does not have. It is sent the sum over these axes.
    """

    name: str
    features: int
    outputs: int
    shape: tuple[int, ...]
    widest: int
    seed: int
    jacobian: Tensor | None = None
    convolutions: tuple[Convolution, ...] = ()
    tokens: bool = False
    widest_token: int = 0
    summed: int = 0


class Over:
    """A recipe that draws through another recipe, `base`. What it is told of a place, it tells its base.

    A subclass is a dataclass with a field `base`, and has `draw_at`. With `resizes` it draws its base at other sizes
    than those of a place, so that a base which needs the place is refused.
    """

    base: Feedback
    resizes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_recipe(self.base, "base", resized=self.resizes)

    @property
    def needs_jacobian(self) -> bool:
        """Whether the base reads `place.jacobian`."""
        return needs_jacobian(self.base)

    @property
    def needs_place(self) -> bool:
        """Whether the base cannot draw from two sizes alone."""
        return needs_place(self.base)

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs], of a place with these two sizes and one axis."""
        alone = Place("", features, outputs, (features,), features, generator.initial_seed())
        return self.draw_at(alone, generator)

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place; a subclass says how."""
        raise NotImplementedError


def draw_at(recipe: Feedback, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
    """Draw the matrix of a place, by the recipe's own `draw_at` if the recipe has one, else by `draw`.

    Returns:
        F on the CPU, contiguous, with memory that nothing else holds, and outside of autograd.

    Raises:
        FeedbackShapeError: the recipe gave a matrix of another shape.
        ArgumentError: the recipe gave no Tensor, or a matrix that does not hold finite real numbers.
    """
    at = getattr(recipe, "draw_at", None)
    matrix = at(place, generator) if at else recipe.draw(place.features, place.outputs, generator)
    return _checked(matrix, f"{shown(recipe)} gave {place.name!r}", place.features, place.outputs)


def draw_sized(
    recipe: Feedback, features: int, outputs: int, generator: torch.Generator
) -> Float[Tensor, "features outputs"]:
    """Draw as `draw_at` does, but from two sizes alone: for a recipe whose base has another size than the place."""
    return _checked(recipe.draw(features, outputs, generator), f"{shown(recipe)} gave", features, outputs)


def check_recipe(recipe: object, what: str = "feedback", *, resized: bool = False) -> None:
    """Raise ArgumentError unless an object is a recipe.

    Args:
        recipe: what the user gave.
        what: name of the argument, for the message.
        resized: whether the recipe will draw at other sizes than those of a place. Then a recipe that needs the place
            or the Jacobian there is refused too.
    """
    if isinstance(recipe, type) or not callable(getattr(recipe, "draw", None)):
        raise ArgumentError(
            f"{what}={shown(recipe)} is no recipe; give an instance such as feedalign.feedback.Gaussian(), or any "
            "object with draw(features, outputs, generator)"
        )
    if resized and (needs_place(recipe) or needs_jacobian(recipe)):
        raise ArgumentError(
            f"{what}={shown(recipe)} makes the matrix of one particular point, and would here be drawn at other sizes; "
            "give a recipe that two sizes are enough for, such as feedalign.feedback.Gaussian()"
        )


def needs_jacobian(recipe: object) -> bool:
    """Return whether the recipe reads `Place.jacobian`, so that data must be seen before the recipe can draw."""
    return bool(getattr(recipe, "needs_jacobian", False))


def needs_place(recipe: object) -> bool:
    """Return whether the recipe must be told of a place, so that its `draw` refuses."""
    return bool(getattr(recipe, "needs_place", False))


def owned(matrix: Tensor) -> Tensor:
    """Return a copy on the CPU: contiguous, of floating-point numbers, with its own memory and outside of autograd.

    A rule changes learned feedback in place, and safetensors saves no Tensor that is not contiguous or shares memory.
    """
    dtype = matrix.dtype if matrix.is_floating_point() else torch.float32
    return matrix.detach().to(device="cpu", dtype=dtype, copy=True, memory_format=torch.contiguous_format)


def fault_of(matrix: Tensor) -> str | None:
    """Return why a Tensor cannot be feedback, as the end of "a matrix that is ..."; None if it can."""
    if matrix.is_complex():
        return "complex"
    if matrix.is_quantized:
        return "quantized"
    if matrix.layout != torch.strided:
        return "sparse"
    if matrix.dtype == torch.bool:
        return "boolean"
    if matrix.is_meta:
        return "on the meta device, where a Tensor holds no numbers"
    return None if bool(matrix.isfinite().all()) else "not finite"


def _checked(matrix: object, giver: str, features: int, outputs: int) -> Tensor:
    """Return a recipe's matrix as a copy, or say what is wrong with the matrix and who gave it."""
    if not isinstance(matrix, Tensor):
        raise ArgumentError(f"{giver} a {type(matrix).__name__}, expected a Tensor; convert it with torch.as_tensor")
    if tuple(matrix.shape) != (features, outputs):
        raise FeedbackShapeError(
            f"{giver} a matrix of shape {tuple(matrix.shape)}, expected {(features, outputs)}, features by outputs"
        )
    if fault := fault_of(matrix):
        raise ArgumentError(f"{giver} a matrix that is {fault}; feedback is a dense matrix of finite real numbers")
    return owned(matrix)
