"""What every data set is once loaded: images and labels, train and test."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images, split into train and test; n and the split are the data set's own.

    Attributes:
        name: the name `load` knows it by.
        train_images: uint8 [n, c, h, w], 0 black to 255 white.
        train_labels: int64 [n], in 0..classes-1.
        test_images: uint8 [n, c, h, w].
        test_labels: int64 [n].
        classes: how many labels there are.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
