"""Theory of feedback alignment in numbers alone: numpy, scipy and numba, never torch.

Each of its parts is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from feedalign.theory import convolution, linear, shallow

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submodules=["convolution", "linear", "shallow"])

__all__ = ["convolution", "linear", "shallow"]
