"""Training: one loop for every rule and network."""

from feedalign.lab.training.loop import one_thread, steps_per_epoch, train

__all__ = ["one_thread", "steps_per_epoch", "train"]
