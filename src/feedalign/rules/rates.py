"""Learning rate and decay of learned feedback."""

from __future__ import annotations

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
