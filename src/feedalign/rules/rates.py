"""Learning rate and decay of learned feedback."""

from __future__ import annotations

from feedalign.errors import ArgumentError


def check_rates(lr: float, weight_decay: float) -> None:
    """Raise ArgumentError unless both are at least 0 and one step forgets no more than everything."""
    if lr < 0 or weight_decay < 0 or lr * weight_decay > 1:
        raise ArgumentError(
            f"lr={lr}, weight_decay={weight_decay}: neither may be negative, and their product, the decay of one step, "
            "may not be above 1"
        )
