"""Load a data set, or a part of it, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feedalign.errors import ArgumentError
from feedalign.lab.data.digits import digits
from feedalign.lab.data.image_data import ImageData
from feedalign.lab.data.stored import STORED
from feedalign.lab.data.subsets import of_classes, of_samples
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
    data = digits() if name == "digits" else STORED[name].load(data_folder() if folder is None else Path(folder))
    if classes is not None:
        data = of_classes(data, classes)
    return data if samples is None else of_samples(data, samples, seed)
