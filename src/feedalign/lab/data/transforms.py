"""From images to inputs: smaller, standardised, flat."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from feedalign.errors import ArgumentError
from feedalign.lab.data.image_data import ImageData


def resize(images: Tensor, size: int) -> Tensor:
    """Average the pixels each new pixel covers.

    Args:
        images: [n, c, h, w], uint8 or floating; the values keep their scale.
        size: height and width of the result, in pixels.

    Returns:
        [n, c, size, size]; float32 for uint8, else the dtype of `images`.

    Raises:
        ArgumentError: `images` has no four dimensions, or `size` is not positive.
    """
    _check_images(images)
    if size < 1:
        raise ArgumentError(f"size must be at least 1 pixel, got {size}")
    return interpolate(_floating(images), size=(size, size), mode="area")


def standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Give each channel of the train images mean 0 and standard deviation 1, and map the test images alike.

    A channel that is constant over the train images is shifted but not scaled.

    Args:
        train: [n, c, h, w], uint8 or floating.
        test: [m, c, h, w].

    Returns:
        Both, floating; the test images' own mean and deviation are near 0 and 1 only.

    Raises:
        ArgumentError: an argument has no four dimensions.
    """
    _check_images(train)
    _check_images(test)
    train, test = _floating(train), _floating(test)
    std, mean = torch.std_mean(train, dim=(0, 2, 3), correction=0, keepdim=True)  # [1, c, 1, 1]
    std = std.where(std > 0, 1)
    return (train - mean).div_(std), (test - mean).div_(std)


def flatten(images: Tensor) -> Tensor:
    """Return the images as vectors, channel by channel: [n, c, h, w] to [n, c·h·w]."""
    return images.flatten(start_dim=1)


def prepare(data: ImageData, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return train and test inputs for a network of vectors: resized if `size` is given, standardised, flat.

    Returns:
        Train inputs [n, d] and test inputs [m, d], float32; d is c·h·w, or c·size².
    """
    train, test = data.train_images, data.test_images
    if size is not None:
        train, test = resize(train, size), resize(test, size)
    train, test = standardise(train, test)
    return flatten(train), flatten(test)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise ArgumentError(f"images must be [n, c, h, w], got shape {list(images.shape)}")


def _floating(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float()
