"""Matrices without structure: independent entries, or orthonormal columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import number_at_least


@dataclass(frozen=True)
class _Scaled:
    """A recipe for entries of one size: `scale`, or 1/√features where `scale` is None.

    With 1/√features a column has a length of about one.
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            object.__setattr__(self, "scale", number_at_least("scale", self.scale, 0))

    def scale_of(self, features: int) -> float:
        """Return the scale of the entries of a matrix with this many rows."""
        return 1 / math.sqrt(features) if self.scale is None else self.scale


@dataclass(frozen=True)
class Gaussian(_Scaled):
    """Independent normal entries of mean zero.

    Attributes:
        scale: standard deviation of an entry; 1/√features unless given.

    Raises:
        ArgumentError: `scale` is no finite number of at least 0.
    """

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        return self.scale_of(features) * normal(features, outputs, generator)


@dataclass(frozen=True)
class Uniform(_Scaled):
    """Independent entries, uniform on [−scale, scale].

    Attributes:
        scale: half width of the interval; 1/√features unless given, as in Refinetti et al. (2021).

    Raises:
        ArgumentError: `scale` is no finite number of at least 0.
    """

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        return self.scale_of(features) * (2 * uniform(features, outputs, generator) - 1)


@dataclass(frozen=True)
class Rademacher(_Scaled):
    """Independent entries, −scale or scale with equal probability.

    Attributes:
        scale: size of every entry; 1/√features unless given.

    Raises:
        ArgumentError: `scale` is no finite number of at least 0.
    """

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        signs = torch.randint(2, (features, outputs), generator=generator, device="cpu")
        return self.scale_of(features) * (2 * signs - 1).float()


@dataclass(frozen=True)
class Orthogonal:
    """Orthonormal columns, FᵀF = scale² I, uniform over all such matrices.

    A matrix with fewer features than outputs cannot have orthonormal columns. Its rows are orthonormal instead:
    FFᵀ = scale² I.

    Attributes:
        scale: length of a column.

    Raises:
        ArgumentError: `scale` is no finite number of at least 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", number_at_least("scale", self.scale, 0))

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        matrix = torch.empty(features, outputs, dtype=torch.float32, device="cpu")
        return torch.nn.init.orthogonal_(matrix, gain=self.scale, generator=generator)


def normal(rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """Return independent normal numbers of mean 0 and variance 1, in float32 on the CPU whatever the defaults are."""
    return torch.randn(rows, columns, generator=generator, dtype=torch.float32, device="cpu")


def uniform(rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """Return independent numbers, uniform on [0, 1), in float32 on the CPU whatever the defaults are."""
    return torch.rand(rows, columns, generator=generator, dtype=torch.float32, device="cpu")
