"""Matrices that are another recipe's matrix, transformed: thinned, made positive, or times a matrix of the outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import number_between
from feedalign.errors import FeedbackShapeError
from feedalign.feedback.given import given_matrix
from feedalign.feedback.random import Gaussian, uniform
from feedalign.feedback.recipe import Feedback, Over, Place, draw_at


@dataclass(frozen=True)
class Sparse(Over):
    """The base's matrix, in which each entry is kept with probability `density`, independently, and is zero otherwise.

    Kept entries are divided by √density. So a column has the expected squared length that the base gives it.

    Attributes:
        density: in (0, 1].
        base: recipe of the full matrix.

    Raises:
        ArgumentError: `density` is no number in (0, 1], or `base` is no recipe.
    Source: sparse error feedback as in Crafton et al. (2019).
    """

    density: float = 0.1
    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        advice = "0.1 keeps one entry in ten"
        object.__setattr__(self, "density", number_between("density", self.density, 0, 1, ends="(]", advice=advice))
        super().__post_init__()

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place."""
        full = draw_at(self.base, place, generator)
        kept = uniform(place.features, place.outputs, generator) < self.density
        return full * kept / math.sqrt(self.density)


@dataclass(frozen=True)
class Magnitudes(Over):
    """The absolute values of the base's entries.

    Attributes:
        base: recipe of the entries.

    Raises:
        ArgumentError: `base` is no recipe.
    """

    base: Feedback = field(default_factory=Gaussian)

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw |F| of a place."""
        return draw_at(self.base, place, generator).abs()


@dataclass(frozen=True, eq=False)
class Conditioned(Over):
    r"""Conditioned feedback: hidden layers are sent F_l P e, with F_l the base's matrix. The readout keeps e.

    With P = (Σ_yx Σ_xy)^(−1/2) (for isotropic inputs: Cov(y)^(−1/2)) the alignment matrices are well conditioned from
    the first step. So the layers align where outputs are correlated or of unequal variance.
    `theory.linear.conditioner` computes P from a known covariance. The rule `ConditionedDFA` finds P in training.

    Attributes:
        P: [outputs, outputs], a Tensor, a numpy array or a list of lists.
        base: recipe of F_l.

    Raises:
        ArgumentError: `P` is no matrix of finite real numbers, or `base` is no recipe.
        FeedbackShapeError: `P` is not square; or (drawing) is not outputs by outputs.
    """

    P: Any
    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = tuple(given_matrix("P", self.P).shape)
        if shape[0] != shape[1]:
            raise FeedbackShapeError(f"P has shape {shape}, expected a square matrix, outputs by outputs")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F P of a place."""
        matrix = draw_at(self.base, place, generator)
        P = given_matrix("P", self.P).to(device=matrix.device, dtype=matrix.dtype)
        if len(P) != place.outputs:
            where = f" at {place.name!r}" if place.name else ""
            raise FeedbackShapeError(
                f"P is {tuple(P.shape)}, but the feedback{where} has {place.outputs} outputs; P is outputs by outputs"
            )
        return matrix @ P
