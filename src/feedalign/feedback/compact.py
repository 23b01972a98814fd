"""Recipes for large models: few numbers for many tokens and for many outputs, or, if asked for, all of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.checks import whole_number
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback.form import Compact, Form, draw_stored, form_at
from feedalign.feedback.random import Gaussian
from feedalign.feedback.recipe import Feedback, Over, Place, draw_at


@dataclass(frozen=True)
class Tokenwise(Compact):
    """One matrix for all tokens of a sample, [features of a token, outputs]: each token is sent the same signal.

    For models whose output has no axis of tokens, such as a classifier that takes the mean over its tokens, and for
    encoders of a decoder with another number of tokens. Sequences may have another length in every batch. The features
    of a token are the last axis of a sample; all other axes count tokens. A point with one axis has the base's matrix.

    The columns of the stored matrix have the length that the base gives. Nothing is divided by the number of tokens, so
    what a token is sent does not depend on the number of tokens.

    Attributes:
        base: recipe of the stored matrix. With `Shared()` it is one matrix for all tokens of all points.

    Raises:
        ArgumentError: `base` is no recipe that two sizes are enough for.
    """

    base: Feedback = field(default_factory=Gaussian)
    resizes: ClassVar[bool] = True

    def form_at(self, place: Place) -> Form:
        """Return the form of F: the base's form at one token, for all tokens."""
        form = form_at(self.base, _one_token(place))
        if len(place.shape) < 2:
            return form
        if form.copies != "none":
            raise FeedbackShapeError(
                f"Tokenwise(base={self.base!r}) would repeat the rows of {place.name!r} twice, over the positions of a "
                "channel and over tokens; give a base without positions, such as Gaussian() or Shared()"
            )
        return replace(form, copies="tokens")

    def draw_stored(self, place: Place, generator: torch.Generator) -> Tensor:
        """Draw the matrix of one token."""
        return draw_stored(self.base, _one_token(place), generator)


def _one_token(place: Place) -> Place:
    """Return the place of one token; the widest place is then the one with the widest token."""
    width = place.shape[-1]
    return replace(place, features=width, shape=(width,), widest=max(place.widest_token, width))


@dataclass(frozen=True)
class Automatic(Compact):
    """What a rule takes unless it is given a recipe: `Gaussian`, and `Tokenwise` where a sample is known to be tokens.

    A sample is known to be tokens if it has two axes or more, and if the last layer with parameters below the point
    puts its features on the last axis, as `nn.Linear`, `nn.LayerNorm` and `nn.MultiheadAttention` do. With
    `batch_dims` the sample is taken as a whole, and the matrix is `Gaussian`.
    """

    base: ClassVar[Feedback] = Gaussian()  # type: ignore[misc]  # in other recipes it is a field; here it is fixed

    def form_at(self, place: Place) -> Form:
        """Return the form of F."""
        return form_at(self._of(place), place)

    def draw_stored(self, place: Place, generator: torch.Generator) -> Tensor:
        """Draw the numbers that are stored."""
        return draw_stored(self._of(place), place, generator)

    def _of(self, place: Place) -> Feedback:
        return Tokenwise() if place.tokens else self.base


@dataclass(frozen=True)
class Sketched(Compact):
    r"""F_l = B_l Rᵀ: one random R, [outputs, rank], for all points, and a small B_l, [features, rank], for each point.

    For models with many outputs, such as the tokens of a vocabulary. In a step e R is computed once. The product with
    B_l then costs as much as for a model with `rank` outputs, and so does the memory of B_l.

    R is sparse: output c belongs to column c mod rank, with a random sign. So e R takes additions alone, and R is
    stored as one sign, one byte, for each output. Column c of F_l is column c mod rank of B_l, times the sign. The
    columns of R are at right angles, and E[R Rᵀ] = 1 over the draws of the signs; see `feedalign.feedback.sketch`.

    Attributes:
        rank: columns of R, from 1 to the number of outputs.
        base: recipe of B_l, which is drawn as if the model had `rank` outputs: `Gaussian()`, `Shared()`, `Tokenwise()`,
            `Channelwise()`, or any recipe that does not look at the outputs.

    Raises:
        ArgumentError: `rank` is no whole number of at least 1, or `base` is no recipe, or needs the Jacobian at a
            point.
        FeedbackShapeError: (drawing) the model has fewer than `rank` outputs.
    """

    rank: int = 64
    base: Feedback = field(default_factory=Gaussian)
    needs_place: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 1))
        super().__post_init__()
        if self.needs_jacobian or isinstance(self.base, Sketched):
            raise ArgumentError(
                f"base={self.base!r} makes a matrix for the model's own outputs, and would here be drawn for "
                f"{self.rank} others; give a recipe such as feedalign.feedback.Gaussian()"
            )

    def form_at(self, place: Place) -> Form:
        """Return the form of F: the base's for `rank` outputs, behind R."""
        if self.rank > place.outputs:
            raise FeedbackShapeError(
                f"Sketched(rank={self.rank}) needs a model of at least {self.rank} outputs, and this model has "
                f"{place.outputs}; give a smaller rank, or the recipe {self.base!r} itself"
            )
        return replace(form_at(self.base, self._inside(place)), sketched=True)

    def draw_stored(self, place: Place, generator: torch.Generator) -> Tensor:
        """Draw B_l."""
        return draw_stored(self.base, self._inside(place), generator)

    def _inside(self, place: Place) -> Place:
        return replace(place, outputs=self.rank)


@dataclass(frozen=True)
class InFull(Over):
    """The base's matrix, stored with all its entries, for each point its own.

    A rule that learns its feedback may then change each entry. Under the base itself it changes the stored numbers, so
    that channelwise feedback stays channelwise, and shared feedback stays shared.

    Attributes:
        base: recipe of the matrix.

    Raises:
        ArgumentError: `base` is no recipe.
    """

    base: Feedback = field(default_factory=Gaussian)

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place."""
        return draw_at(self.base, place, generator)
