"""Cross-seed overlap: whether runs that began apart end at the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feedalign.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class CrossSeedOverlap:
    """Mean cosine of the weights over all pairs of runs.

    Attributes:
        layers: by name of the weight matrix.
        total: of all weight matrices concatenated.
        pairs: the cosines of single pairs that make the total, in the order (0,1), (0,2), ..., (1,2), ...
    """

    layers: dict[str, float]
    total: float
    pairs: Tensor


def cross_seed_overlap(states: Sequence[Mapping[str, Tensor]]) -> CrossSeedOverlap:
    """Measure how alike the weights of several runs of one network are.

    Runs that differ in initialisation and data order only end with an overlap near zero where the loss leaves the
    weights free, and well above it where the learning rule singles out one of the solutions.

    Args:
        states: one `state_dict` per run. Weight matrices and kernels are compared, in float64; biases, statistics and
            what a rule keeps beside the model, such as feedback matrices, are not.

    Returns:
        Mean cosines by layer and in total.

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
            if tensor.ndim >= 2 and tensor.is_floating_point() and not name.startswith(("feedback.", "gathered."))
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
    pairs = _pair_cosines([torch.cat(list(run.values())) for run in weights])
    return CrossSeedOverlap(
        layers={name: float(_pair_cosines([run[name] for run in weights]).mean()) for name in weights[0]},
        total=float(pairs.mean()),
        pairs=pairs,
    )


def _size(run: Mapping[str, Tensor], name: str) -> int:
    return run[name].numel() if name in run else 0


def _pair_cosines(vectors: list[Tensor]) -> Tensor:
    unit = torch.stack([vector / vector.norm() for vector in vectors])  # [runs, weights]
    return (unit @ unit.T)[*torch.triu_indices(len(vectors), len(vectors), offset=1)]
