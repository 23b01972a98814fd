"""Matrices that are another recipe's, thinned, cut in rank, repeated over positions or shared between layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback.dense import Gaussian
from feedalign.feedback.recipe import Feedback, Place, check_recipe, draw_at, is_count, needs_jacobian


class _Over:
    """A recipe over another one, `base`: told of a place, it tells its base of it too."""

    base: Feedback

    @property
    def needs_jacobian(self) -> bool:
        return needs_jacobian(self.base)

    def draw(self, features: int, outputs: int, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F, [features, outputs]."""
        alone = Place("", features, outputs, (features,), features, generator.initial_seed())
        return self.draw_at(alone, generator)

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        raise NotImplementedError


@dataclass(frozen=True)
class Sparse(_Over):
    """The base with each entry kept with probability `density`, independently, and zero otherwise.

    Kept entries are divided by √density, so that a column's expected squared length is the base's.

    Attributes:
        density: in (0, 1].
        base: recipe of the full matrix.

    Raises:
        ArgumentError: density outside (0, 1].
    Source: sparse error feedback as in Crafton et al. (2019).
    """

    density: float = 0.1
    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_recipe(self.base, "base")
        if not 0 < self.density <= 1:
            raise ArgumentError(f"density={self.density} is no probability in (0, 1]; 0.1 keeps one entry in ten")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place."""
        full = draw_at(self.base, place, generator)
        kept = torch.rand(full.shape, generator=generator) < self.density
        return full * kept / math.sqrt(self.density)


@dataclass(frozen=True)
class LowRank(_Over):
    """F = U V with U, [features, rank], drawn by the base and V, [rank, outputs], Gaussian of variance 1/rank.

    So a column's expected squared length is that of a column of U: of the base.

    Attributes:
        rank: at least 1; the matrix's rank is at most this.
        base: recipe of U.

    Raises:
        ArgumentError: rank is no whole number of at least 1, or the base `Aligned`.
    """

    rank: int = 1
    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_recipe(self.base, "base", resized=True)
        if not is_count(self.rank):
            raise ArgumentError(f"rank={self.rank!r} must be a whole number of at least 1")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place."""
        left = self.base.draw(place.features, self.rank, generator)
        return left @ torch.randn(self.rank, place.outputs, generator=generator) / math.sqrt(self.rank)


@dataclass(frozen=True)
class Channelwise(_Over):
    """One row a channel, the same at all positions of that channel; divided by √positions to keep a column's length.

    Features are in the order `flatten()` gives: all positions of channel 0, then of channel 1, and so on. Feedback
    without such structure cannot be matched by the weights of a convolution.

    Attributes:
        channels: how many channels each point has; or a mapping from points' names, then the base itself goes to
            points it does not list. Unless given, the first axis of a sample at the point, which needs two axes or
            more: after a `Flatten` the channels can no longer be told.
        base: recipe of the rows, [channels, outputs].

    Raises:
        ArgumentError: channels are no whole numbers of at least 1, or the base is `Aligned`.
        FeedbackShapeError: (drawing) channels that do not divide the features, or that cannot be told.
    """

    channels: int | Mapping[str, int] | None = None
    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_recipe(self.base, "base", resized=True)
        given = self.channels.values() if isinstance(self.channels, Mapping) else [self.channels]
        if not all(each is None or is_count(each) for each in given):
            raise ArgumentError(f"channels={self.channels!r} must be whole numbers of at least 1")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place."""
        channels = self._channels_at(place)
        if channels is None:
            return draw_at(self.base, place, generator)
        positions = place.features // channels
        rows = self.base.draw(channels, place.outputs, generator)
        return rows.repeat_interleave(positions, 0) / math.sqrt(positions)

    def _channels_at(self, place: Place) -> int | None:
        if isinstance(self.channels, Mapping):
            channels = self.channels.get(place.name)
        elif self.channels is not None:
            channels = self.channels
        elif len(place.shape) > 1:
            channels = place.shape[0]
        else:
            raise FeedbackShapeError(
                f"point {place.name!r} has {place.features} features on one axis, so its channels cannot be told; give "
                f"channels=, a mapping such as {{{place.name!r}: 64}}, or take the point before the flattening "
                "(under a sequential rule no place has several axes)"
            )
        if channels is not None and place.features % channels:
            raise FeedbackShapeError(
                f"point {place.name!r} has {place.features} features, which are not {channels} channels of equally "
                "many positions; features are channels times positions"
            )
        return channels


@dataclass(frozen=True)
class Shared(_Over):
    """One matrix for all points: the base drawn once for the widest, of which each takes the first rows it needs.

    Rows are scaled by √(widest/features), so that a narrower point's columns keep the base's length.

    Attributes:
        base: recipe of the one matrix.

    Raises:
        ArgumentError: the base is `Aligned`.
    """

    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_recipe(self.base, "base", resized=True)

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:  # noqa: ARG002
        """Draw F of a place, from the seed alone: a generator that moved on would give each point another matrix."""
        one = replace(place, features=place.widest, shape=(place.widest,), jacobian=None)
        whole = draw_at(self.base, one, torch.Generator().manual_seed(place.seed))
        return whole[: place.features] * math.sqrt(place.widest / place.features)


@dataclass(frozen=True)
class Magnitudes(_Over):
    """The absolute values of the base's entries.

    Attributes:
        base: recipe of the entries.
    """

    base: Feedback = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_recipe(self.base, "base")

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw |F| of a place."""
        return draw_at(self.base, place, generator).abs()
