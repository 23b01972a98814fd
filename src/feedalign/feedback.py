"""How a fixed feedback matrix is drawn: small frozen recipes, each with one method, `draw`.

Convention: a feedback matrix F_l is [features, outputs]; the signal it carries is e Fᵀ, [batch, features]. The default
scale, 1/√features, gives columns of length about one, whatever the width of the layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Feedback", "Gaussian", "Orthogonal", "Uniform"]


class Feedback(Protocol):
    """A recipe for feedback matrices."""

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs], from `generator` alone: same generator state, same matrix.

        It comes in PyTorch's default dtype on the CPU; a rule moves and casts it to its model.
        """
        ...


@dataclass(frozen=True)
class Gaussian:
    """Independent normal entries of mean zero.

    Attributes:
        scale: standard deviation of an entry; 1/√features unless given.
    """

    scale: float | None = None

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        scale = 1 / math.sqrt(features) if self.scale is None else self.scale
        return scale * torch.randn(features, outputs, generator=generator)


@dataclass(frozen=True)
class Uniform:
    """Independent entries, uniform on [−scale, scale].

    Attributes:
        scale: half width of the interval; 1/√features unless given, as in Refinetti et al. (2021).
    """

    scale: float | None = None

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        scale = 1 / math.sqrt(features) if self.scale is None else self.scale
        return scale * (2 * torch.rand(features, outputs, generator=generator) - 1)


@dataclass(frozen=True)
class Orthogonal:
    """Orthonormal columns, FᵀF = scale² I, uniform over all such matrices.

    Where there are fewer features than outputs that is impossible; the rows are then orthonormal, FFᵀ = scale² I.

    Attributes:
        scale: length of a column.
    """

    scale: float = 1.0

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        matrix = torch.empty(features, outputs)
        return torch.nn.init.orthogonal_(matrix, gain=self.scale, generator=generator)
