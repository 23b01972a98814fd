"""What every data set is once loaded: images and labels, train and test; and parts of one, by class or by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from feedalign.checks import refused, whole_number, whole_numbers
from feedalign.streams import torch_generator


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images, split into train and test; n and the split are the data set's own.

    Attributes:
        name: the name `load` knows it by.
        train_images: uint8 [n, c, h, w], 0 black to 255 white. Once they are prepared for a network, floating [n, ...].
        train_labels: int64 [n], in 0..classes-1.
        test_images: like the train images.
        test_labels: int64 [n].
        classes: how many labels there are.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int


def of_classes(data: ImageData, classes: Sequence[int]) -> ImageData:
    """Return the images of these classes, in the data set's order.

    Args:
        data: a data set.
        classes: at least two labels, each once. The first becomes label 0, the second label 1, and so on.

    Raises:
        ArgumentError: a label is unknown or stands twice, or there are fewer than two.
    """
    wanted = whole_numbers("classes", classes, 0)
    if len(wanted) < 2 or len(set(wanted)) < len(wanted) or max(wanted) >= data.classes:
        expected = f"at least two different labels of {data.name}, which are 0 to {data.classes - 1}"
        raise refused("classes", expected, classes)
    new = torch.full((data.classes,), -1)  # of each label; −1 if it is not kept
    new[wanted] = torch.arange(len(wanted))
    train, test = new[data.train_labels], new[data.test_labels]
    return replace(
        data,
        train_images=data.train_images[train >= 0],
        train_labels=train[train >= 0],
        test_images=data.test_images[test >= 0],
        test_labels=test[test >= 0],
        classes=len(wanted),
    )


def of_samples(data: ImageData, samples: int, seed: int) -> ImageData:
    """Return the data set with `samples` training images, drawn without replacement; the test images stay.

    A smaller number gives the first images of a larger one. The seed decides which images are drawn, and their order.

    Raises:
        ArgumentError: `samples` is below 1, or above what there is.
    """
    there = len(data.train_labels)
    count = whole_number("samples", samples, 1, there, advice=f"{data.name} has {there} training images here")
    drawn: Tensor = torch.randperm(there, generator=torch_generator(seed, "subset"))[:count]
    return replace(data, train_images=data.train_images[drawn], train_labels=data.train_labels[drawn])
