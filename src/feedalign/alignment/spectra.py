"""Singular values of a matrix, and what they say of how evenly it treats its directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of a matrix, and what they say of its conditioning.

    Attributes:
        values: descending, [..., r]; eigenvalues where the matrix is a covariance. Leading axes are the networks of
            an ensemble.
        rank: how many are not zero to the precision of the model; the smallest over the networks.
        condition_number: largest over smallest of those that are not zero, geometric mean over the networks; 1 is
            perfect. What lies in no direction at all is not counted: see `rank`.
        effective_rank: exp of the entropy of the values divided by their sum, mean over the networks: from 1, one
            direction, to r, all alike. Source: Roy & Vetterli (2007).
    """

    values: Tensor
    rank: int
    condition_number: float
    effective_rank: float


def spectrum_of(singular: Tensor, tolerance: float, *, squared: bool = False) -> Spectrum:
    """Return the spectrum of descending singular values.

    Args:
        singular: [..., r].
        tolerance: those up to this share of the largest are taken for zero.
        squared: the matrix is A Aᵀ, the singular values those of A.
    """
    present = singular > tolerance * singular[..., :1]
    values = singular.square() if squared else singular
    smallest = torch.where(present, values, torch.inf).amin(-1)
    share = torch.where(present, values, 0.0)
    share = share / share.sum(-1, keepdim=True)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    return Spectrum(
        values=values,
        rank=int(present.sum(-1).min()),
        condition_number=float((values[..., 0] / smallest).log().mean().exp()),
        effective_rank=float(entropy.exp().mean()),
    )
