"""Feedback matrices of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import finite_array, refused
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback.recipe import Place, fault_of, owned


@dataclass(frozen=True, eq=False)
class FromArray:
    """Matrices of the user's own. A rule gets a copy of them.

    Attributes:
        arrays: one array, [features, outputs], for a model with one point or with points of one width; or a mapping
            from the names of the points to arrays. An array is a Tensor, a numpy array or a list of lists.

    Raises:
        ArgumentError: an array is no matrix of finite real numbers, or a name is no text.
        FeedbackShapeError: (drawing) a point's array has another shape than the point needs, or a point has no array.
            The message names the point.
    """

    arrays: Any

    def __post_init__(self) -> None:
        if not isinstance(self.arrays, Mapping):
            given_matrix("arrays", self.arrays)
            return
        object.__setattr__(self, "arrays", dict(self.arrays))
        for name, array in self.arrays.items():
            if not isinstance(name, str):
                raise refused("a name in arrays", "the dotted name of a point", name, "write the name as text")
            given_matrix(f"arrays[{name!r}]", array)

    @property
    def needs_place(self) -> bool:
        """Whether the arrays go by the points' names."""
        return isinstance(self.arrays, Mapping)

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Return a copy of the one array, if its shape is [features, outputs]."""
        if isinstance(self.arrays, Mapping):
            raise ArgumentError(
                "FromArray holds an array for each point by name, and two sizes do not tell the name of the point; "
                "give it to a rule, or give it one array"
            )
        return _copy(self.arrays, features, outputs, "")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Return a copy of the array of a place."""
        array = self.arrays
        if isinstance(array, Mapping):
            if place.name not in array:
                raise FeedbackShapeError(
                    f"FromArray has no array for {place.name!r}, only for {', '.join(map(repr, array)) or 'none'}; "
                    f"add one of shape {(place.features, place.outputs)}"
                )
            array = array[place.name]
        return _copy(array, place.features, place.outputs, f" for {place.name!r}")


def given_matrix(name: str, value: Any) -> Float[Tensor, "rows columns"]:
    """Return a matrix of finite real numbers that a user gave, as a Tensor. It may share the memory of what was given.

    The user gave a Tensor, or anything that numpy makes an array of. The name is that of the argument.
    """
    if not isinstance(value, Tensor):
        return torch.as_tensor(finite_array(name, value, ("rows", "columns")), device="cpu")
    if value.ndim != 2 or not value.numel():
        raise ArgumentError(f"{name} must be an array of shape [rows, columns], got shape {list(value.shape)}")
    if fault := fault_of(value):
        raise ArgumentError(f"{name} must be a dense matrix of finite real numbers, got a Tensor that is {fault}")
    return value.detach()


def _copy(array: Any, features: int, outputs: int, whom: str) -> Tensor:
    matrix = given_matrix("arrays", array)
    if tuple(matrix.shape) != (features, outputs):
        raise FeedbackShapeError(
            f"the array{whom} has shape {tuple(matrix.shape)}, expected {(features, outputs)}, features by outputs"
        )
    return owned(matrix)
