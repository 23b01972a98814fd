"""The 8x8 digits that come with scikit-learn: embedded data, for tests and for runs of a minute."""

from __future__ import annotations

import numpy as np
import torch

from feedalign.lab.data.image_data import ImageData


def digits() -> ImageData:
    """Return the 1797 digits, 1 channel of 8x8, with every fifth image of each class as test data (1442 + 355).

    A rule splits them, not a generator, so that the split is the same under every version of torch and numpy.
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
