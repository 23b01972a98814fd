"""Learned feedback, of both families: its learning rate and decay, and which changes are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from feedalign.checks import number_at_least
from feedalign.errors import ArgumentError


def check_rates(lr: float, weight_decay: float) -> tuple[float, float]:
    """Return both as floats; ArgumentError unless both are at least 0 and one step forgets no more than everything."""
    lr, weight_decay = number_at_least("lr", lr, 0), number_at_least("weight_decay", weight_decay, 0)
    if lr * weight_decay > 1:
        raise ArgumentError(
            f"lr={lr}, weight_decay={weight_decay}: their product, the decay of one step, must be at most 1; lower one "
            "of the two"
        )
    return lr, weight_decay


def keep(changed: Tensor, held: Tensor) -> None:
    """Put the numbers that a rule has learned in the place of those that are held, if all of them are finite.

    A training loop that skips a batch whose gradients are not finite keeps its weights, and so the feedback stays too.
    """
    held.copy_(torch.where(changed.isfinite().all(), changed, held))
