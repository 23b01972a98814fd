"""Training: one loop for every rule and network, and its state, from which an interrupted training goes on."""

from feedalign.lab.training.loop import log_steps, one_thread, steps_per_epoch, train
from feedalign.lab.training.state import Measurements

__all__ = ["Measurements", "log_steps", "one_thread", "steps_per_epoch", "train"]
