r"""R of F_l = B_l Rᵀ: from many outputs to few columns, by additions alone.

Output c belongs to column c mod rank, with a sign s_c that is drawn once. Row c of R holds s_c in this column, and
zeros. R is stored as its signs, one byte for each output.

* Each row of R has length 1. So column c of F_l is column c mod rank of B_l, times s_c.
* RᵀR is diagonal, and holds how many outputs each column has: outputs/rank, rounded up or down.
* The signs are independent, so E[R Rᵀ] = 1 over the draws. Products of errors, e₁ᵀ R Rᵀ e₂, are right in the mean, as
  with columns of a dense R, and a smooth error is not sent along one direction.

Source: the count sketch of Charikar, Chen and Farach-Colton (2002), with the columns taken in turn. In a vocabulary
that is ordered by frequency, the `rank` most frequent tokens then have a column each.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from feedalign.feedback.recipe import Place
from feedalign.streams import torch_generator

# A piece of the error is read twice, times the signs and then for the sum, and stays in the cache of a core in between.
PIECE = 2**18


def draw_signs(place: Place) -> Int8[Tensor, " outputs"]:
    """Draw the signs of the outputs from the seed alone, so that all points have the same."""
    drawn = torch.randint(2, (place.outputs,), generator=torch_generator(place.seed, "sketch"), device="cpu")
    return (2 * drawn - 1).to(torch.int8)


def sketched(message: Float[Tensor, "*batch outputs"], signs: Int8[Tensor, " outputs"], rank: int) -> Tensor:
    """Return the message times R, [*batch, rank]."""
    rows = message.reshape(-1, len(signs))
    # The compiler makes one loop of product and sum, and the memory of an accelerator is fast enough for two.
    whole = torch.compiler.is_compiling() or rows.device.type != "cpu"
    pieces = [rows] if whole else rows.split(max(1, PIECE // len(signs)))
    sums = [_sums(piece * signs.to(message.dtype), rank) for piece in pieces]
    return (sums[0] if len(sums) == 1 else torch.cat(sums)).reshape(*message.shape[:-1], rank)


def outputs_per_column(outputs: int, rank: int, like: Tensor) -> Int[Tensor, " rank"]:
    """Return how many outputs each column of R has: the diagonal of RᵀR, on the device of `like`."""
    return (outputs + rank - 1 - torch.arange(rank, device=like.device)) // rank


def dense_sketch(signs: Int8[Tensor, " outputs"], rank: int, like: Tensor) -> Float[Tensor, "outputs rank"]:
    """Return R with all its entries, in the precision and on the device of `like`."""
    outputs = torch.arange(len(signs), device=like.device)
    R = like.new_zeros(len(signs), rank)
    R[outputs, outputs % rank] = signs.to(like)
    return R


def _sums(signed: Float[Tensor, "rows outputs"], rank: int) -> Float[Tensor, "rows rank"]:
    """Return the sum over each column's outputs."""
    rows, outputs = signed.shape
    whole = outputs - outputs % rank
    sums = signed[:, :whole].reshape(rows, outputs // rank, rank).sum(1)
    # Not in place, so that autograd may go through.
    return sums if whole == outputs else sums + torch.nn.functional.pad(signed[:, whole:], (0, rank - outputs + whole))
