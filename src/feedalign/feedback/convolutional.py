"""Matrices that fit convolutions: smooth over positions, or computed for a chain of layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback.dense import Gaussian
from feedalign.feedback.recipe import Convolution, Feedback, Place, check_recipe, draw_at, is_count
from feedalign.geometry import Array


@dataclass(frozen=True)
class Smooth:
    """Smooth over the positions of a channel: random weights of its lowest cosine modes, for every channel its own.

    One mode along each axis is `Channelwise`, all of them are the base itself, rotated. In between a channel can be
    told where in the image its error lies, roughly.

    Attributes:
        modes: how many along each axis of the image, the constant one included; at most its size.
        base: recipe of the weights, [channels · modes, outputs].

    Raises:
        ArgumentError: no mode.
        FeedbackShapeError: (drawing) a point without positions, such as one after a `Flatten`.
    """

    modes: int = 2
    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_recipe(self.base, "base", resized=True)
        if not is_count(self.modes):
            raise ArgumentError(f"modes={self.modes!r} must be a whole number of at least 1")

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Refuse: a number of features does not tell their positions."""
        raise ArgumentError("Smooth() needs the shape of the image at the point, which a rule gives; features do not")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place."""
        channels, *sizes = place.shape
        if not sizes:
            raise FeedbackShapeError(
                f"point {place.name!r} has {place.features} features on one axis, so their positions cannot be told; "
                "take the point before the flattening (under a sequential rule no place has positions)"
            )
        kept = [min(self.modes, size) for size in sizes]
        matrix = self.base.draw(channels * math.prod(kept), place.outputs, generator)
        matrix = matrix.reshape(channels, *kept, place.outputs)
        for axis, (size, modes) in enumerate(zip(sizes, kept, strict=True), start=1):
            phase = torch.outer(torch.arange(size) + 0.5, torch.arange(modes)) * (math.pi / size)
            waves = torch.nn.functional.normalize(phase.cos(), dim=0)  # orthonormal columns [size, modes]
            matrix = torch.tensordot(waves, matrix, ([1], [axis])).movedim(0, axis)
        return matrix.reshape(place.features, place.outputs)


class _Fitted:
    """A recipe computed for all convolutions of a chain at once; `base` for points at the ends of none."""

    base: Feedback

    def __post_init__(self) -> None:
        check_recipe(self.base, "base")

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Refuse: without a network there is nothing to fit."""
        raise ArgumentError(f"{type(self).__name__}() needs the model's convolutions, which a rule gives")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place, from the seed alone: the matrices of a chain belong together."""
        for chain in _chains(place.convolutions):
            points = [chain[0].below, *(link.above for link in chain)]
            if place.name in points:
                found = self.fit(chain, place.outputs, np.random.default_rng(place.seed))
                return torch.as_tensor(found[points.index(place.name)], dtype=torch.get_default_dtype())
        return draw_at(self.base, place, generator)

    def fit(self, chain: list[Convolution], outputs: int, rng: np.random.Generator) -> list[Array]:
        raise NotImplementedError


@dataclass(frozen=True)
class Toeplitz(_Fitted):
    """The feedback that maximises the alignability of the convolutions between points.

    All channels of a layer have one spatial pattern an output. That aligns best and teaches least: the channels of a
    layer are sent the same. See `feedalign.theory.convolution.optimal_feedback`.

    Attributes:
        base: recipe for points next to no convolution.
    """

    base: Feedback = field(default_factory=Gaussian)

    def fit(self, chain: list[Convolution], outputs: int, rng: np.random.Generator) -> list[Array]:
        """Return the matrices of a chain."""
        from feedalign.theory import convolution  # loaded when first used, so that a wrapped model needs no scipy

        return convolution.optimal_feedback([link.geometry for link in chain], outputs, rng)


@dataclass(frozen=True)
class FromMask(_Fitted):
    """The pattern of connections of the convolutions between points, factorised; random only in its start.

    See `feedalign.theory.convolution.mask_feedback`.

    Attributes:
        base: recipe for points next to no convolution.
    Source: tried by Refinetti et al. (2021).
    """

    base: Feedback = field(default_factory=Gaussian)

    def fit(self, chain: list[Convolution], outputs: int, rng: np.random.Generator) -> list[Array]:
        """Return the matrices of a chain."""
        from feedalign.theory import convolution  # loaded when first used, so that a wrapped model needs no scipy

        return convolution.mask_feedback([link.geometry for link in chain], outputs, rng)


@dataclass(frozen=True)
class FromWeights(_Fitted):
    """The weights of the convolutions between points as they are when it is drawn, factorised; not random.

    See `feedalign.theory.convolution.weight_feedback`.

    Attributes:
        base: recipe for points next to no convolution.
    Source: tried by Refinetti et al. (2021).
    """

    base: Feedback = field(default_factory=Gaussian)

    def fit(self, chain: list[Convolution], outputs: int, rng: np.random.Generator) -> list[Array]:  # noqa: ARG002
        """Return the matrices of a chain."""
        from feedalign.theory import convolution  # loaded when first used, so that a wrapped model needs no scipy

        kernels = [link.kernel.detach().double().cpu().numpy() for link in chain]
        return convolution.weight_feedback(kernels, [link.geometry for link in chain], outputs)


def _chains(convolutions: tuple[Convolution, ...]) -> list[list[Convolution]]:
    """Return the convolutions in runs that follow one another."""
    chains: list[list[Convolution]] = []
    for link in convolutions:
        if chains and chains[-1][-1].above == link.below:
            chains[-1].append(link)
        else:
            chains.append([link])
    return chains
