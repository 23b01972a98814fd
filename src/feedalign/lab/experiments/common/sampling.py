"""Images as experiments take them: standardised, and for fully connected networks a sample with noise on its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from feedalign.errors import ArgumentError
from feedalign.lab.data import ImageData, flatten, label_noise, load, of_classes, resize, standardise
from feedalign.streams import torch_generator


class Sample(NamedTuple):
    """What one draw of an ensemble is trained and tested on.

    Attributes:
        train_x: [n, pixels].
        train_y: labels that the networks are given, [n].
        corrupted: which of these labels differ from the true ones, bool [n].
        test_x: [m, pixels].
        test_y: true labels, [m].
        classes: number of classes.
    """

    train_x: Tensor
    train_y: Tensor
    corrupted: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int

    def to(self, device: str) -> Sample:
        """Return the sample on a device."""
        *tensors, classes = self
        train_x, train_y, corrupted, test_x, test_y = (tensor.to(device) for tensor in tensors)
        return Sample(train_x, train_y, corrupted, test_x, test_y, classes)


def image_sample(
    dataset: str,
    image_size: int,
    chosen: Sequence[int],
    train_images: int,
    noise: float,
    first_seed: int,
    draw: int,
) -> Sample:
    """Return images, standardised over the whole training set, and labels.

    The images of a draw are drawn from the stream "data", its random labels from the stream "label noise".

    Args:
        dataset: a name that `feedalign.lab.data.load` knows.
        image_size: height and width to which images are averaged down; 0 keeps the images as they are.
        chosen: the classes that are kept, which become 0, 1, ... in this order; none stands for all.
        train_images: number of training images, drawn at random; 0 stands for all, in the order of the data set.
        noise: share of the training labels that is drawn anew from all classes; a drawn label may be the true one.
        first_seed: seed of the streams.
        draw: number of the draw.

    Raises:
        ArgumentError: a class is unknown or stands twice, or there are fewer training images than are asked for.
        DataError: the data set was not fetched.
    """
    data = prepared(dataset, image_size)
    if chosen:
        data = of_classes(data, chosen)
    train_x, train_y, classes = flatten(data.train_images), data.train_labels, data.classes
    if train_images > len(train_x):
        raise ArgumentError(f"train_images={train_images}, but there are {len(train_x)}; give 0 for all")
    if train_images:
        drawn = torch.randperm(len(train_x), generator=torch_generator(first_seed, "data", draw))[:train_images]
        train_x, train_y = train_x[drawn], train_y[drawn]
    given, _ = label_noise(train_y, noise, classes, torch_generator(first_seed, "label noise", draw))
    # A label that was drawn and happens to be the true one misleads nobody, so it does not count as corrupted.
    return Sample(train_x, given, given != train_y, flatten(data.test_images), data.test_labels, classes)


@lru_cache(maxsize=1)  # all jobs of a config use one data set, and CIFAR-10 takes a second
def prepared(dataset: str, image_size: int, first: int | None = None) -> ImageData:
    """Return a data set with its first training images; all images are averaged down and standardised.

    Args:
        dataset: a name that `feedalign.lab.data.load` knows.
        image_size: height and width to which images are averaged down; 0 keeps the images as they are.
        first: number of training images; None stands for all.
    """
    data = load(dataset)
    train, test = data.train_images[:first], data.test_images
    if image_size:
        train, test = resize(train, image_size), resize(test, image_size)
    train, test = standardise(train, test)
    return replace(data, train_images=train, train_labels=data.train_labels[:first], test_images=test)
