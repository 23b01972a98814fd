"""Theory of feedback alignment in numbers alone: numpy, scipy and numba, never torch."""

from feedalign.theory import convolution, linear, shallow

__all__ = ["convolution", "linear", "shallow"]
