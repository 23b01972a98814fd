"""Theory of feedback alignment in numbers alone: numpy, scipy and numba, never torch."""

from feedalign.theory import linear, shallow

__all__ = ["linear", "shallow"]
