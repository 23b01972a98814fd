"""The feedback recipes by name, for command lines and files."""

from __future__ import annotations

from collections.abc import Callable

from feedalign.feedback import (
    Channelwise,
    Feedback,
    FromMask,
    FromWeights,
    Gaussian,
    LowRank,
    Orthogonal,
    Rademacher,
    Shared,
    Smooth,
    Sparse,
    Toeplitz,
    Tokenwise,
    Uniform,
)

# The scale is that of the recipe, or of the Gaussian matrix that the recipe begins with; None is the recipe's own.
RECIPES: dict[str, Callable[[float | None], Feedback]] = {
    "gaussian": Gaussian,
    "uniform": Uniform,
    "rademacher": Rademacher,
    "orthogonal": lambda scale: Orthogonal() if scale is None else Orthogonal(scale),
    "low-rank": lambda scale: LowRank(base=Gaussian(scale)),
    "sparse": lambda scale: Sparse(base=Gaussian(scale)),
    "shared": lambda scale: Shared(Gaussian(scale)),
    "tokenwise": lambda scale: Tokenwise(Gaussian(scale)),
    "channelwise": lambda scale: Channelwise(base=Gaussian(scale)),
    "smooth": lambda scale: Smooth(base=Gaussian(scale)),
    "toeplitz": lambda scale: Toeplitz(Gaussian(scale)),
    "mask": lambda scale: FromMask(Gaussian(scale)),
    "weights": lambda scale: FromWeights(Gaussian(scale)),
}


def recipe_of(name: str, scale: float | None) -> Feedback | None:
    """Return the recipe of this name; None for "automatic", which leaves the choice to the rule."""
    return None if name == "automatic" else RECIPES[name](scale)
