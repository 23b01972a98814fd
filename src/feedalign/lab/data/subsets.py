"""A part of a data set: some of its classes, some of its training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from feedalign.checks import refused, whole_number, whole_numbers
from feedalign.lab.data.image_data import ImageData
from feedalign.streams import torch_generator


def of_classes(data: ImageData, classes: Sequence[int]) -> ImageData:
    """Return the images of these classes, in the data set's order.

    Args:
        data: a data set.
        classes: at least two labels, each once. The first becomes label 0, the second label 1, and so on.

    Raises:
        ArgumentError: a label is unknown or stands twice, or there are fewer than two.
    """
    new = new_labels(data.name, data.classes, classes)
    train, test = new[data.train_labels], new[data.test_labels]
    return replace(
        data,
        train_images=data.train_images[train >= 0],
        train_labels=train[train >= 0],
        test_images=data.test_images[test >= 0],
        test_labels=test[test >= 0],
        classes=len(classes),
    )


def new_labels(dataset: str, there: int, classes: Sequence[int]) -> Tensor:
    """Return the new label of each label, int64 [labels]: its place in `classes`, or −1 if it is not kept.

    Args:
        dataset: name of the data set, for the message.
        there: number of labels in the data set.
        classes: the labels to keep.

    Raises:
        ArgumentError: a label is unknown or stands twice, or there are fewer than two.
    """
    wanted = whole_numbers("classes", classes, 0)
    if len(wanted) < 2 or len(set(wanted)) < len(wanted) or max(wanted) >= there:
        expected = f"at least two different labels of {dataset}, which are 0 to {there - 1}"
        raise refused("classes", expected, classes)
    new = torch.full((there,), -1)
    new[wanted] = torch.arange(len(wanted))
    return new


def of_samples(data: ImageData, samples: int, seed: int) -> ImageData:
    """Return the data set with fewer training images, drawn without replacement; the test images stay.

    Args:
        data: a data set.
        samples: number of training images. A smaller number gives the first images of a larger one.
        seed: decides which images are drawn, and their order.

    Raises:
        ArgumentError: `samples` is below 1, or above what there is.
    """
    there = len(data.train_labels)
    count = whole_number("samples", samples, 1, there, advice=f"{data.name} has {there} training images here")
    drawn: Tensor = torch.randperm(there, generator=torch_generator(seed, "subset"))[:count]
    return replace(data, train_images=data.train_images[drawn], train_labels=data.train_labels[drawn])
