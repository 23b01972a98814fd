"""How a feedback matrix is stored by few numbers, and how a signal is made from these numbers without the matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from feedalign.feedback.recipe import Feedback, Over, Place, draw_at
from feedalign.feedback.sketch import dense_sketch, draw_signs


@dataclass(frozen=True)
class Form:
    r"""How F of a place is made of the stored matrix S: F = scale · E S' Rᵀ.

    S' is the first `rows` rows of S. R is the identity, or the one matrix that all points share (`Sketched`). E copies
    each row of S' to the features that the row is for, so E holds zeros and ones. A rule multiplies by R, then by S',
    and hands the copies on as a view. So no Tensor of the size of F exists in a training step.

    Attributes:
        rows: rows of S that are used; the first ones.
        columns: columns of S: the outputs, or the columns of R.
        copies: which features have the same row. "none": no two features. "positions": all positions of one channel,
            where channels are the first axis of a sample. "tokens": the same feature of all tokens, where the features
            of a token are the last axis of a sample.
        scale: factor on the rows.
        shared: whether S is one matrix for all points, or belongs to one point.
        stored_rows: rows of S.
        sketched: whether there is an R.
        summed: how many of the batch axes of the output the point does not have. The message is summed over these
            axes: an encoder is sent the sum of the errors at all tokens of the decoder.
    """

    rows: int
    columns: int
    stored_rows: int
    copies: Literal["none", "positions", "tokens"] = "none"
    scale: float = 1.0
    shared: bool = False
    sketched: bool = False
    summed: int = 0

    @classmethod
    def full(cls, place: Place) -> Form:
        """Return the form of a matrix that is stored with all its entries."""
        return cls(place.features, place.outputs, place.features, summed=place.summed)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Shape of S."""
        return self.stored_rows, self.columns

    @property
    def is_full(self) -> bool:
        """Whether S is F."""
        return self.copies == "none" and not self.shared and not self.sketched

    def fits(self, sample: Sequence[int]) -> bool:
        """Return whether a sample of this shape at the point can be sent a signal."""
        features = math.prod(sample)
        if self.copies == "positions":
            # After a flattening only the number of features can be looked at.
            return features % self.rows == 0 if len(sample) == 1 else sample[0] == self.rows
        if self.copies == "tokens":
            return bool(sample) and sample[-1] == self.rows
        return features == self.rows

    def used(self, stored: Float[Tensor, "stored columns"]) -> Float[Tensor, "rows columns"]:
        """Return S', the rows that the point uses, as a view of S."""
        return stored if len(stored) == self.rows else stored[: self.rows]

    def up(self, sent: Float[Tensor, "*batch rows"], shape: Sequence[int]) -> Tensor:
        """Return a signal for each row in the shape of an activation; the copies take no memory of their own."""
        if self.scale != 1:
            sent = sent * self.scale
        batch, sample = sent.shape[:-1], shape[sent.ndim - 1 :]
        if self.copies == "positions":
            positions = math.prod(sample) // self.rows
            return sent.unsqueeze(-1).expand(*sent.shape, positions).reshape(shape)
        if self.copies == "tokens":
            return sent.reshape(*batch, *[1] * (len(sample) - 1), self.rows).expand(shape)
        return sent if len(shape) == sent.ndim else sent.reshape(shape)

    def down(self, hidden: Tensor, batch: Sequence[int]) -> Float[Tensor, "*batch rows"]:
        """Return the mean of an activation over the features of each row, divided by `scale`.

        If F changed by h eᵀ, the matrix of this form next to the changed F, in least squares, has an S' that changed by
        `down(h)` eᵀ.
        """
        if self.copies == "positions":
            rows = hidden.reshape(*batch, self.rows, -1).mean(-1)
        elif self.copies == "tokens":
            rows = hidden.reshape(*batch, -1, self.rows).mean(-2)
        else:
            rows = hidden.reshape(*batch, self.rows)
        return rows if self.scale == 1 else rows / self.scale

    def matrix(
        self, stored: Float[Tensor, "stored columns"], features: int, sketch: Float[Tensor, "outputs columns"] | None
    ) -> Float[Tensor, "features outputs"]:
        """Return F with all its entries, [features, outputs]."""
        rows = self.used(stored)
        if self.scale != 1:
            rows = rows * self.scale
        if self.copies == "positions":
            rows = rows.repeat_interleave(features // self.rows, 0)
        elif self.copies == "tokens":
            rows = rows.repeat(features // self.rows, 1)
        return rows if sketch is None else rows @ sketch.T


class Compact(Over, ABC):
    """A recipe whose matrices are stored by fewer numbers than they have entries.

    A subclass says which form a place has (`form_at`), and draws the stored numbers (`draw_stored`).
    """

    @abstractmethod
    def form_at(self, place: Place) -> Form:
        """Return the form of the matrix of a place, but for `summed`. Nothing is drawn."""

    @abstractmethod
    def draw_stored(self, place: Place, generator: torch.Generator) -> Tensor:
        """Draw S of a place, with the shape that the form says."""

    def draw_at(self, place: Place, generator: torch.Generator) -> Float[Tensor, "features outputs"]:
        """Draw F of a place, with all its entries."""
        form = self.form_at(place)
        stored = self.draw_stored(place, generator)
        R = dense_sketch(draw_signs(place), form.columns, stored) if form.sketched else None
        return form.matrix(stored, place.features, R)


def form_at(recipe: Feedback, place: Place) -> Form:
    """Return the form in which a recipe's matrix of a place is stored: with all its entries, unless the recipe says."""
    form = recipe.form_at(place) if isinstance(recipe, Compact) else Form.full(place)
    return replace(form, summed=place.summed)


def draw_stored(recipe: Feedback, place: Place, generator: torch.Generator) -> Tensor:
    """Draw the numbers by which a recipe's matrix of a place is stored; raises what `draw_at` raises."""
    if isinstance(recipe, Compact):
        return recipe.draw_stored(place, generator)
    return draw_at(recipe, place, generator)
