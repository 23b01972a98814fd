"""Weak alignment of one layer: the matrix between feedback above and below that describes its weights best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from feedalign.alignment.spectra import Spectrum, spectrum_of
from feedalign.errors import ArgumentError
from feedalign.feedback import Factors

_LARGEST = 2**27  # entries of an alignment matrix that is made: 1 GiB in float64


@dataclass(frozen=True, eq=False)
class AlignmentMatrix:
    """How a layer's weights lie along its feedback.

    Attributes:
        shape: of the matrix Â_l: (C, n_0) in the first layer, (C, C) above.
        spectrum: of the matrix.
        residual: |W_l − F_l Â_l F_{l−1}ᵀ| / |W_l|: 0 where the layer has weak alignment exactly, 1 where nothing of its
            weights lies along the feedback, root mean square over the networks.
        held: the matrix; None if it would have more than 2²⁷ entries (1 GiB). Read it as `matrix`.
    """

    shape: tuple[int, int]
    spectrum: Spectrum
    residual: float
    held: Tensor | None = field(repr=False)

    @property
    def matrix(self) -> Tensor:
        """Â_l, [C, n_0] in the first layer, [C, C] above; of an ensemble [E, C, ...].

        Raises:
            ArgumentError: the matrix has more than 2²⁷ entries, so it was not made.
        """
        if self.held is None:
            raise ArgumentError(
                f"the alignment matrix has shape {self.shape}, which is {8 * math.prod(self.shape) / 1e9:,.1f} GB, so "
                "it was not made; `spectrum` and `residual` are known all the same"
            )
        return self.held


def alignment_matrix(weight: Tensor, above: Factors | None, below: Factors | None, precision: float) -> AlignmentMatrix:
    """Measure a weight matrix W, [..., features, features below], in float64, beside the factors of its feedback.

    F = E L Pᵀ, with L from `Factors.narrow` and orthonormal columns of P. So Â = P M P'ᵀ, with M = (E L)⁺ W (E' L')⁺ᵀ,
    and the small M has the singular values of Â. There is no feedback above the output and below the input of the
    model. Singular values below `precision`, the relative rounding error of the weights, are taken for zero.
    """
    # The mean over the features that have the same row of feedback.
    means = _on_both_sides(lambda side, tensor: side.gathered(tensor) / side.number_of_copies, weight, above, below)
    left, right = (None if side is None else side.narrow() for side in (above, below))
    small = _between(_inverse(left), means, _inverse(right))
    described = _on_both_sides(Factors.spread, _between(left, small, right), above, below)
    norms = [torch.linalg.matrix_norm(each).square().mean() for each in (weight - described, weight)]
    rows = weight.shape[-2] if above is None else above.outputs
    columns = weight.shape[-1] if below is None else below.outputs
    singular = torch.linalg.svdvals(small)
    zeros = singular.new_zeros(*singular.shape[:-1], min(rows, columns) - singular.shape[-1])
    matrix = None
    if rows * columns <= _LARGEST:
        left, right = (None if side is None else side.rows for side in (above, below))
        matrix = _on_both_sides(Factors.on_outputs, _between(_inverse(left), means, _inverse(right)), above, below)
    return AlignmentMatrix(
        (rows, columns),
        spectrum_of(torch.cat([singular, zeros], -1), rows * precision),
        float((norms[0] / norms[1]).sqrt()),
        matrix,
    )


def _on_both_sides(
    change: Callable[[Factors, Tensor], Tensor], matrix: Tensor, above: Factors | None, below: Factors | None
) -> Tensor:
    """Return the matrix with its last axis changed by the factors below, and the axis before by those above."""
    matrix = matrix if below is None else change(below, matrix)
    return matrix if above is None else change(above, matrix.mT).mT


def _inverse(matrix: Tensor | None) -> Tensor | None:
    return None if matrix is None else torch.linalg.pinv(matrix)


def _between(left: Tensor | None, weight: Tensor, right: Tensor | None) -> Tensor:
    """Return left · weight · rightᵀ; None stands for the identity."""
    found = weight if left is None else left @ weight
    return found if right is None else found @ right.T
