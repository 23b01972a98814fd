"""Feedback that is computed from the network: its own transposed Jacobians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import number_at_least
from feedalign.errors import ArgumentError
from feedalign.feedback.recipe import Place, fault_of, owned


@dataclass(frozen=True)
class Aligned:
    r"""The feedback that is backprop to first order: the transposed Jacobian of what follows the point.

    .. math:: F_l = \langle ∂ŷ/∂h_l \rangle^T

    The mean is over the first batch that the rule sees (`example_input`, or the first forward pass), in evaluation
    mode. In a linear network F_l is the transposed product of all downstream weights, and DFA *is* backprop until the
    weights move. Under a sequential rule F_l is the layer's own transposed weight. F_l is computed once, and does not
    follow the weights.

    Attributes:
        scale: factor on the Jacobian.

    Raises:
        ArgumentError: `scale` is no finite number of at least 0; or (drawing) there is no network, or its Jacobian
            holds no finite real numbers.
    """

    scale: float = 1.0
    needs_jacobian: ClassVar[bool] = True
    needs_place: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", number_at_least("scale", self.scale, 0))

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Refuse: without a network there is no Jacobian."""
        raise ArgumentError("Aligned() needs the network; a rule gives it, draw(features, outputs, generator) does not")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Return F of a place, from the Jacobian there."""
        if place.jacobian is None:
            raise ArgumentError(f"Aligned() needs the Jacobian at {place.name!r}, which this recipe was not given")
        if fault := fault_of(place.jacobian):
            raise ArgumentError(
                f"the Jacobian at {place.name!r} is {fault}; Aligned() needs a network with weights and an input that "
                "give finite numbers"
            )
        return owned(self.scale * place.jacobian.detach().T)
