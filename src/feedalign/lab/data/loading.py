"""Load a data set, or a part of it, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from feedalign.errors import ArgumentError
from feedalign.lab.data.image_data import ImageData, of_classes, of_samples
from feedalign.lab.data.stored import STORED
from feedalign.lab.files import data_folder

NAMES = ("digits", *STORED)


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    classes: Sequence[int] | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Return a data set or a part of one; the digests of fetched ones are checked each time.

    Args:
        name: one of `NAMES`.
        folder: where `fetch` put it; None is `feedalign.lab.files.data_folder()`.
        classes: labels to keep, of train and test images; the first of them becomes label 0, the second label 1, and so
            on. All are kept unless given.
        samples: number of training images to keep, drawn at random among those of the classes; a smaller number keeps
            the first images of a larger one. All are kept, in their order, unless given.
        seed: decides which training images are kept.

    Raises:
        ArgumentError: no data set has this name, or it has no such classes or not so many images.
        DataError: it was not fetched yet, or its files are truncated or altered.
    """
    if name not in NAMES:
        raise ArgumentError(f"unknown data set {name!r}; expected one of {', '.join(NAMES)}")
    data = _digits() if name == "digits" else STORED[name].load(data_folder() if folder is None else Path(folder))
    if classes is not None:
        data = of_classes(data, classes)
    return data if samples is None else of_samples(data, samples, seed)


def _digits() -> ImageData:
    """Return the 1797 digits that come with scikit-learn, 1 channel of 8x8: 1442 for training and 355 for tests.

    Every fifth image of each class is a test image. A rule splits them, not a generator, so that the split is the same
    under every version of torch and numpy.
    """
    from sklearn.datasets import load_digits  # takes a second to import, and no other data set needs it

    bunch = load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    # Stored as 0..16; scaled so that white is 255, as in the other sets.
    images = np.rint(np.asarray(bunch.images) * (255 / 16)).astype(np.uint8)[:, None]
    test = np.zeros(labels.size, dtype=bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[4::5]] = True
    return ImageData(
        name="digits",
        train_images=torch.from_numpy(images[~test]),
        train_labels=torch.from_numpy(labels[~test]),
        test_images=torch.from_numpy(images[test]),
        test_labels=torch.from_numpy(labels[test]),
        classes=10,
    )
