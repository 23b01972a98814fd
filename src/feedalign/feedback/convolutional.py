"""Matrices that fit convolutions: smooth over positions, or computed for a chain of layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import Array, whole_number
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback.random import Gaussian
from feedalign.feedback.recipe import Convolution, Feedback, Over, Place, draw_at, draw_sized, fault_of, owned
from feedalign.streams import numpy_generator


@dataclass(frozen=True)
class Smooth(Over):
    """Smooth over the positions of a channel: random weights of the lowest cosine modes, for each channel its own.

    With one mode along each axis this is `Channelwise`. With all modes this is the base itself, rotated. In between, a
    channel is told roughly where in the image its error lies.

    Attributes:
        modes: how many modes along each axis of the image, the constant mode included. An axis has as many modes as
            positions; a larger number means all of them.
        base: recipe of the weights, [channels · modes, outputs].

    Raises:
        ArgumentError: `modes` is no whole number of at least 1, or `base` is no recipe that two sizes are enough for.
        FeedbackShapeError: (drawing) the point has no positions, as a point after a `Flatten`.
    """

    modes: int = 2
    base: Feedback = field(default_factory=Gaussian)
    needs_place: ClassVar[bool] = True
    resizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", whole_number("modes", self.modes, 1))
        super().__post_init__()

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Refuse: the number of features does not tell their positions."""
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
        matrix = draw_sized(self.base, channels * math.prod(kept), place.outputs, generator)
        matrix = matrix.reshape(channels, *kept, place.outputs)
        for axis, (size, modes) in enumerate(zip(sizes, kept, strict=True), start=1):
            waves = _cosine_modes(size, modes).to(matrix.dtype)
            matrix = torch.tensordot(waves, matrix, ([1], [axis])).movedim(0, axis)
        return owned(matrix.reshape(place.features, place.outputs))


def _cosine_modes(size: int, modes: int) -> Float[Tensor, "size modes"]:
    """Return the lowest cosine modes of an axis as orthonormal columns, the constant one first."""
    position = torch.arange(size, dtype=torch.float32, device="cpu") + 0.5
    phase = torch.outer(position, torch.arange(modes, dtype=torch.float32, device="cpu")) * (math.pi / size)
    return torch.nn.functional.normalize(phase.cos(), dim=0)


@dataclass(frozen=True)
class _Fitted(Over):
    """A recipe that computes the matrices of a whole chain of convolutions; `base` draws for all other points."""

    base: Feedback = field(default_factory=Gaussian)
    needs_place: ClassVar[bool] = True

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Refuse: without a network there are no convolutions to fit."""
        raise ArgumentError(f"{type(self).__name__}() needs the model's convolutions, which a rule gives")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place, from the seed and the chain: the matrices of a chain belong together."""
        for chain in _chains(place.convolutions):
            points = [chain[0].below, *(link.above for link in chain)]
            if place.name in points:
                rng = numpy_generator(place.seed, "fitted feedback", points[0])
                found = _fit(self, chain, place.outputs, rng)
                return owned(torch.as_tensor(found[points.index(place.name)], device="cpu"))
        return draw_at(self.base, place, generator)


@dataclass(frozen=True)
class Toeplitz(_Fitted):
    """The feedback that maximises the alignability of the convolutions between points.

    All channels of a layer have one spatial pattern for each output. Such feedback aligns best and teaches least: all
    channels of a layer are sent the same. See `feedalign.theory.convolution.optimal_feedback`.

    Attributes:
        base: recipe for points next to no convolution.

    Raises:
        ArgumentError: `base` is no recipe.
    """


@dataclass(frozen=True)
class FromMask(_Fitted):
    """The pattern of connections of the convolutions between points, factorised; only the start is random.

    See `feedalign.theory.convolution.mask_feedback`.

    Attributes:
        base: recipe for points next to no convolution.

    Raises:
        ArgumentError: `base` is no recipe.
    Source: tried by Refinetti et al. (2021).
    """


@dataclass(frozen=True)
class FromWeights(_Fitted):
    """The weights of the convolutions between points, as they are at the time of drawing, factorised; not random.

    See `feedalign.theory.convolution.weight_feedback`.

    Attributes:
        base: recipe for points next to no convolution.

    Raises:
        ArgumentError: `base` is no recipe.
    Source: tried by Refinetti et al. (2021).
    """


def _fit(recipe: _Fitted, chain: list[Convolution], outputs: int, rng: np.random.Generator) -> list[Array]:
    """Return the matrices of the points of a chain, from the bottom, as a recipe computes them."""
    from feedalign.theory import convolution  # loaded when first used, so that a wrapped model needs no scipy

    geometries = [link.geometry for link in chain]
    if isinstance(recipe, Toeplitz):
        return convolution.optimal_feedback(geometries, outputs, rng)
    if isinstance(recipe, FromMask):
        return convolution.mask_feedback(geometries, outputs, rng)
    for link in chain:
        if fault := fault_of(link.kernel):
            raise ArgumentError(
                f"the kernel between {link.below!r} and {link.above!r} is {fault}; FromWeights() needs finite numbers"
            )
    kernels = [link.kernel.detach().double().cpu().numpy() for link in chain]
    return convolution.weight_feedback(kernels, geometries, outputs)


def _chains(convolutions: tuple[Convolution, ...]) -> list[list[Convolution]]:
    """Return the convolutions in runs that follow one another."""
    chains: list[list[Convolution]] = []
    for link in convolutions:
        if chains and chains[-1][-1].above == link.below:
            chains[-1].append(link)
        else:
            chains.append([link])
    return chains
