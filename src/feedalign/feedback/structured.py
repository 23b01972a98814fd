"""Matrices with fewer free numbers than entries: of low rank, repeated over positions, or shared between layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import refused, whole_number
from feedalign.errors import FeedbackShapeError
from feedalign.feedback.form import Compact, Form, draw_stored, form_at
from feedalign.feedback.random import Gaussian, normal
from feedalign.feedback.recipe import Feedback, Over, Place, draw_sized
from feedalign.streams import torch_generator


@dataclass(frozen=True)
class LowRank(Over):
    """F = U V, where the base draws U, [features, rank], and V, [rank, outputs], is Gaussian of variance 1/rank.

    So a column of F has the expected squared length of a column of U.

    Attributes:
        rank: at least 1. The rank of F is at most this number.
        base: recipe of U.

    Raises:
        ArgumentError: `rank` is no whole number of at least 1, or `base` is no recipe that two sizes are enough for.
    """

    rank: int = 1
    base: Feedback = field(default_factory=Gaussian)
    resizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 1))
        super().__post_init__()

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place."""
        left = draw_sized(self.base, place.features, self.rank, generator)
        right = normal(self.rank, place.outputs, generator).to(left.dtype)
        return left @ right / math.sqrt(self.rank)


@dataclass(frozen=True)
class Channelwise(Compact):
    """One row for each channel, the same at all positions of that channel, divided by √positions.

    The division keeps the length of a column. Features are in the order of `flatten()`: all positions of channel 0,
    then all positions of channel 1, and so on. Under feedback without such structure, the weight alignment of a
    convolution stays near zero.

    Stored are the rows of the channels, [channels, outputs]; so an image of another size can be sent its signal too.
    The factor 1/√positions is that of the image for which the rows were drawn.

    Attributes:
        channels: how many channels each point has; or a mapping from the names of points to their numbers of channels,
            and the base itself draws for points that are not in the mapping. Unless given, the channels are the first
            axis of a sample at the point. That needs a sample of two axes or more: after a `Flatten` nothing tells the
            channels.
        base: recipe of the rows, [channels, outputs].

    Raises:
        ArgumentError: `channels` are no whole numbers of at least 1, a name in `channels` is no text, or `base` is no
            recipe that two sizes are enough for.
        FeedbackShapeError: (drawing) the features are no multiple of the channels, or nothing tells the channels.
    """

    channels: int | Mapping[str, int] | None = None
    base: Feedback = field(default_factory=Gaussian)
    resizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        channels = self.channels
        if isinstance(channels, Mapping):
            for name in channels:
                if not isinstance(name, str):
                    raise refused("a name in channels", "the dotted name of a point", name, "write the name as text")
            channels = {name: whole_number(f"channels[{name!r}]", number, 1) for name, number in channels.items()}
        elif channels is not None:
            channels = whole_number("channels", channels, 1)
        object.__setattr__(self, "channels", channels)
        super().__post_init__()

    @property
    def needs_place(self) -> bool:
        """Whether the channels must be told from the shape of a sample."""
        return self.channels is None

    def form_at(self, place: Place) -> Form:
        """Return the form of F: one row for each channel."""
        channels = self._channels_at(place)
        return form_at(self.base, place) if channels is None else Form(channels, place.outputs, channels, "positions")

    def draw_stored(self, place: Place, generator: torch.Generator) -> Tensor:
        """Draw the rows of the channels, [channels, outputs], divided by √positions."""
        channels = self._channels_at(place)
        if channels is None:
            return draw_stored(self.base, place, generator)
        rows = draw_sized(self.base, channels, place.outputs, generator)
        return rows / math.sqrt(place.features // channels)

    def _channels_at(self, place: Place) -> int | None:
        """Return the number of channels of a place; None where the base itself draws."""
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
                f"point {place.name!r} has {place.features} features, which are not {channels} channels with the same "
                "number of positions each; the features must be channels times positions"
            )
        return channels


@dataclass(frozen=True)
class Shared(Compact):
    """One matrix for all points: the base draws it for the widest point, and each point takes the first rows it needs.

    Rows are scaled by √(widest/features). So the columns of a narrower point have the length that the base gives.
    Stored is the one matrix. A rule that learns its feedback (`DirectKolenPollack`) learns the one matrix from all
    points; with `InFull(Shared())` each point begins with a copy, which it then changes for itself.

    Attributes:
        base: recipe of the one matrix.

    Raises:
        ArgumentError: `base` is no recipe that two sizes are enough for.
    """

    base: Feedback = field(default_factory=Gaussian)
    resizes: ClassVar[bool] = True

    def form_at(self, place: Place) -> Form:
        """Return the form of F: the first rows of the one matrix."""
        scale = math.sqrt(place.widest / place.features)
        return Form(place.features, place.outputs, place.widest, scale=scale, shared=True)

    def draw_stored(self, place: Place, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Draw the one matrix, [widest, outputs], from the seed alone: each point has another `generator`."""
        own = torch_generator(place.seed, "shared feedback")
        return draw_sized(self.base, place.widest, place.outputs, own)
