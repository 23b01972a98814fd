"""Matrices without structure: independent entries, or orthonormal columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.feedback.recipe import default_scale


@dataclass(frozen=True)
class Gaussian:
    """Independent normal entries of mean zero.

    Attributes:
        scale: standard deviation of an entry; 1/√features unless given.
    """

    scale: float | None = None

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        scale = default_scale(features) if self.scale is None else self.scale
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
        scale = default_scale(features) if self.scale is None else self.scale
        return scale * (2 * torch.rand(features, outputs, generator=generator) - 1)


@dataclass(frozen=True)
class Rademacher:
    """Independent entries, −scale or scale with equal probability.

    Attributes:
        scale: size of every entry; 1/√features unless given.
    """

    scale: float | None = None

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        scale = default_scale(features) if self.scale is None else self.scale
        signs = torch.randint(2, (features, outputs), generator=generator)
        return scale * (2 * signs - 1).to(torch.get_default_dtype())


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
