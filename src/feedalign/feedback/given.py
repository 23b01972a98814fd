"""Matrices that are not random: the network's own transposes, a conditioned base, or what the user has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback.dense import Gaussian
from feedalign.feedback.recipe import Feedback, Place, check_recipe, draw_at, needs_jacobian


@dataclass(frozen=True)
class Aligned:
    r"""The feedback that is backprop to first order: the transposed Jacobian of what follows the point.

    .. math:: F_l = \langle ∂ŷ/∂h_l \rangle^T

    the mean being over the batch the rule sees first (`example_input`, or the first forward pass), in evaluation mode.
    In a linear network that is the transposed product of all downstream weights, and DFA *is* backprop until they
    move. Under a sequential rule it is the layer's own transposed weight. It is drawn once, not kept up to date.

    Attributes:
        scale: factor on it.
    """

    scale: float = 1.0
    needs_jacobian: ClassVar[bool] = True

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Refuse: without a network there is nothing to align with."""
        raise ArgumentError("Aligned() needs the network; a rule gives it, draw(features, outputs, generator) does not")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Return F of a place, from its Jacobian."""
        if place.jacobian is None:
            raise ArgumentError(f"Aligned() needs the Jacobian at {place.name!r}, which this recipe was not given")
        return self.scale * place.jacobian.detach().T


@dataclass(frozen=True, eq=False)
class Conditioned:
    r"""Conditioned feedback: hidden layers are sent F_l P e, F_l the base's matrix; the readout keeps e.

    With P = (Σ_yx Σ_xy)^(−1/2) (of isotropic inputs: Cov(y)^(−1/2)) the alignment matrices are
    well conditioned from the first step, and so the layers align where outputs are correlated or of unequal variance.
    `theory.linear.conditioner` makes P of a known covariance; the rule `ConditionedDFA` finds one in training.

    Attributes:
        P: [outputs, outputs].
        base: recipe of F_l.

    Raises:
        FeedbackShapeError: P is not square, or (drawing) not outputs by outputs.
    """

    P: Any
    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_recipe(self.base, "base")
        shape = tuple(torch.as_tensor(self.P).shape)
        if len(shape) != 2 or shape[0] != shape[1]:
            raise FeedbackShapeError(f"P has shape {shape}, expected a square matrix, outputs by outputs")

    @property
    def needs_jacobian(self) -> bool:
        """Whether the base needs it."""
        return needs_jacobian(self.base)

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F P, [features, outputs]."""
        return self._times_P(self.base.draw(features, outputs, generator), "")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F P of a place."""
        return self._times_P(draw_at(self.base, place, generator), f" at {place.name!r}")

    def _times_P(self, matrix: Tensor, where: str) -> Tensor:  # noqa: N802 — P is the theory's name
        P = torch.as_tensor(self.P, dtype=matrix.dtype, device=matrix.device)
        if len(P) != matrix.shape[1]:
            raise FeedbackShapeError(
                f"P is {tuple(P.shape)}, but the feedback{where} has {matrix.shape[1]} outputs; P is outputs by outputs"
            )
        return matrix @ P


@dataclass(frozen=True, eq=False)
class FromArray:
    """Matrices of the user's own.

    Attributes:
        arrays: one array, [features, outputs], for a model with one point or points of one width; or a mapping from
            the points' names to theirs. Anything `torch.as_tensor` takes.

    Raises:
        FeedbackShapeError: (drawing) an array of another shape than its point's, or none for it; the message says
            which point.
    """

    arrays: Any

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Return the one array, if it is [features, outputs]."""
        if isinstance(self.arrays, Mapping):
            raise ArgumentError("FromArray holds an array for each point by name; a rule asks for them by name")
        return self._checked(self.arrays, features, outputs, "")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Return the array of a place."""
        array = self.arrays
        if isinstance(array, Mapping):
            if place.name not in array:
                raise FeedbackShapeError(
                    f"FromArray has no array for {place.name!r}, only for {', '.join(map(repr, array)) or 'none'}; "
                    f"add one of shape {(place.features, place.outputs)}"
                )
            array = array[place.name]
        return self._checked(array, place.features, place.outputs, f" for {place.name!r}")

    @staticmethod
    def _checked(array: Any, features: int, outputs: int, whom: str) -> Tensor:
        matrix = torch.as_tensor(array)
        if tuple(matrix.shape) != (features, outputs):
            raise FeedbackShapeError(
                f"the array{whom} has shape {tuple(matrix.shape)}, expected {(features, outputs)}, features by outputs"
            )
        # A copy: learned feedback is changed in place.
        return matrix.detach().clone()
