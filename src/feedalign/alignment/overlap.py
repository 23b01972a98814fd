"""Cross-seed overlap: whether runs that began apart end at the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feedalign.errors import ArgumentError


@dataclass(frozen=True)
class CrossSeedOverlap:
    """Mean cosine of the weights over all pairs of runs.

    Attributes:
        layers: by name of the weight matrix.
        total: of all weight matrices concatenated.
    """

    layers: dict[str, float]
    total: float


def cross_seed_overlap(states: Sequence[Mapping[str, Tensor]]) -> CrossSeedOverlap:
    """Measure how alike the weights of several runs of one network are.

    Runs that differ in initialisation and data order only end with an overlap near zero where the loss leaves the weights
    free, and well above it where the learning rule singles out one of the solutions.

    Args:
        states: one `state_dict` per run. Weight matrices and kernels are compared, in float64; biases, statistics and
            feedback matrices are not.

    Raises:
        ArgumentError: fewer than two runs, or runs that do not hold the same weights.
    Source: the degeneracy-breaking argument of Refinetti et al. (2021).
    """
    if len(states) < 2:
        raise ArgumentError(f"got {len(states)} state_dict, expected at least two runs to compare")
    weights = [
        {
            name: tensor.double().flatten()
            for name, tensor in state.items()
            if tensor.ndim >= 2 and tensor.is_floating_point() and not name.startswith("feedback.")
        }
        for state in states
    ]
    for i, other in enumerate(weights):
        different = {n for n in weights[0].keys() | other.keys() if _size(weights[0], n) != _size(other, n)}
        if different or not other:
            raise ArgumentError(
                f"run {i} does not hold the weights of run 0: {', '.join(sorted(different)) or 'none at all'}; "
                "compare runs of one network"
            )
    return CrossSeedOverlap(
        layers={name: _mean_cosine([run[name] for run in weights]) for name in weights[0]},
        total=_mean_cosine([torch.cat(list(run.values())) for run in weights]),
    )


def _size(run: Mapping[str, Tensor], name: str) -> int:
    return run[name].numel() if name in run else 0


def _mean_cosine(vectors: list[Tensor]) -> float:
    """Mean over pairs, from the sum of the unit vectors: |Σ u_i|² = n + 2 Σ_{i<j} u_i·u_j."""
    n = len(vectors)
    total = sum((vector / vector.norm() for vector in vectors), torch.zeros_like(vectors[0]))
    return (float(total.square().sum()) - n) / (n * (n - 1))
