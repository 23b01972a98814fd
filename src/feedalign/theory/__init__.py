"""Theory of feedback alignment in numbers alone: numpy, scipy and numba, never torch."""

from feedalign.theory import shallow

__all__ = ["shallow"]
