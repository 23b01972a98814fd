"""Images and labels in the form in which an experiment trains on them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ImageTask(NamedTuple):
    """Images, prepared for a network, [n, ...], and labels [n], which may carry noise in the training set."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
