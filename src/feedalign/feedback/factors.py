"""A feedback matrix as a product of small factors, for measures of models whose matrices would fill the memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from feedalign.feedback.form import Form
from feedalign.feedback.sketch import outputs_per_column, sketched


@dataclass(frozen=True, eq=False)
class Factors:
    r"""F = E S Qᵀ, in float64. No method makes F.

    E copies each row of S to the features that the row is for, as in `Form`; each feature is for one row. Q has
    orthonormal columns: it is the identity, or the sketch R of all points, each column divided by its length. The
    lengths of the columns of R are factors of S.

    Attributes:
        rows: S, [rows, columns].
        features: how many rows F has.
        outputs: how many columns F has.
        copies: which features have the same row, as in `Form`.
        signs: the signs of R; None where Q is the identity.
    """

    rows: Float[Tensor, "rows columns"]
    features: int
    outputs: int
    copies: str
    signs: Int8[Tensor, " outputs"] | None = None

    @classmethod
    def of(cls, form: Form, stored: Tensor, features: int, signs: Int8[Tensor, " outputs"] | None) -> Factors:
        """Return the factors of a matrix that is made of what is stored; `signs` are used only if the form has an R."""
        rows = form.used(stored).double() * form.scale
        if not form.sketched or signs is None:
            return cls(rows, features, rows.shape[1], form.copies)
        return cls(rows * _lengths(len(signs), rows), features, len(signs), form.copies, signs)

    @property
    def number_of_copies(self) -> int:
        """How many features have the same row."""
        return self.features // len(self.rows)

    def gathered(self, tensor: Float[Tensor, "... features"]) -> Float[Tensor, "... rows"]:
        """Return the sum over the features of each row, on the last axis: the product with E from the right."""
        batch = tensor.shape[:-1]
        if self.copies == "positions":
            return tensor.reshape(*batch, len(self.rows), -1).sum(-1)
        return tensor.reshape(*batch, -1, len(self.rows)).sum(-2) if self.copies == "tokens" else tensor

    def spread(self, tensor: Float[Tensor, "... rows"]) -> Float[Tensor, "... features"]:
        """Return a copy for each feature of a row, on the last axis: the product with Eᵀ from the right."""
        if self.copies == "positions":
            return tensor.repeat_interleave(self.number_of_copies, -1)
        return tensor.tile(self.number_of_copies) if self.copies == "tokens" else tensor

    def on_columns(self, tensor: Float[Tensor, "... outputs"]) -> Float[Tensor, "... columns"]:
        """Return the product with Q from the right."""
        if self.signs is None:
            return tensor
        sums = sketched(tensor.double(), self.signs, self.rows.shape[1])
        return sums / _lengths(self.outputs, sums)

    def on_outputs(self, tensor: Float[Tensor, "... columns"]) -> Float[Tensor, "... outputs"]:
        """Return the product with Qᵀ from the right."""
        if self.signs is None:
            return tensor
        column = torch.arange(self.outputs, device=tensor.device) % self.rows.shape[1]
        return (tensor / _lengths(self.outputs, tensor))[..., column] * self.signs.to(tensor)

    def beside(self, other: Factors) -> tuple[Float[Tensor, "rows k"], Float[Tensor, "others k"]]:
        """Return two matrices A and B with F F'ᵀ = E A Bᵀ E'ᵀ, where F' = E' S' Q'ᵀ is another matrix.

        Their common axis is as short as the columns or the rows of the other matrix allow.
        """
        ours, theirs = self.rows, other.rows
        if self.signs is None and other.signs is not None:
            ours = other.on_columns(ours)
        elif self.signs is not None and other.signs is None:
            theirs = self.on_columns(theirs)
        if len(theirs) >= theirs.shape[1]:
            return ours, theirs
        return ours @ theirs.T, torch.eye(len(theirs), dtype=theirs.dtype, device=theirs.device)

    def narrow(self) -> Float[Tensor, "rows k"]:
        """Return a matrix L with S = L Pᵀ, where the columns of P are orthonormal, and L has no more columns than rows.

        S and L have the same singular values, and the same columns span both.
        """
        if self.rows.shape[1] <= len(self.rows):
            return self.rows
        triangle: Tensor = torch.linalg.qr(self.rows.T, mode="r").R
        return triangle.T


def _lengths(outputs: int, like: Float[Tensor, "... columns"]) -> Float[Tensor, " columns"]:
    """Return the lengths of the columns of R, in the precision and on the device of `like`."""
    return outputs_per_column(outputs, like.shape[-1], like).to(like).sqrt()
