"""A deep linear network and the data of a linear teacher, for `fa.diagnose`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import feedalign as fa


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum() / 2


def data(size: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of a linear teacher, in batches of one size and a shorter last one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 6))
    y = x @ rng.standard_normal((6, 3)) * [1.0, 0.3, 1.0]
    tensors = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    return list(zip(*(each.split(size) for each in tensors), strict=True))


def model(seed: int = 0) -> nn.Module:
    return fa.networks.MLP([6, 20, 20, 3], "linear", bias=False, seed=seed)
