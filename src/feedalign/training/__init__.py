"""Training: one loop for every rule and network."""

from feedalign.training.loop import steps_per_epoch, train

__all__ = ["steps_per_epoch", "train"]
