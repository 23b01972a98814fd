"""The encodings in which CIFAR-10 and CIFAR-100 arrive, all decoded to the four arrays that are stored."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feedalign.errors import DataError
from feedalign.lab.data.pickled import batch
from feedalign.lab.data.stored import CIFAR10, Contents

PICTURE = 3 * 32 * 32  # bytes: the red, the green and the blue plane
_PIXELS = 32 * 32


def from_records(train: Sequence[bytes], test: bytes, label_bytes: int = 1) -> Contents:
    """Decode the binary version: one record a picture, its label and then its red, green and blue planes, as bytes.

    Args:
        train: the train batches in order.
        test: the test batch.
        label_bytes: bytes before the planes, of which the last is the label. In CIFAR-100 the first is the label of a
            coarser division into 20 classes.

    Raises:
        DataError: a batch is no whole number of records.
    """
    record = label_bytes + PICTURE
    for content in (*train, test):
        if len(content) % record:
            raise DataError(f"a batch has {len(content)} bytes, expected a multiple of {record}; it was truncated")
    train_records, test_records = (
        np.frombuffer(content, dtype=np.uint8).reshape(-1, record) for content in (b"".join(train), test)
    )
    return _by_name(
        train_records[:, label_bytes:].tobytes(), train_records[:, label_bytes - 1].tobytes(),
        test_records[:, label_bytes:].tobytes(), test_records[:, label_bytes - 1].tobytes(),
    )  # fmt: skip


def from_pickles(train: Sequence[bytes], test: bytes, labels_key: str) -> Contents:
    """Decode the version for Python, without running the pickles.

    Args:
        train: the train batches in order.
        test: the test batch.
        labels_key: what the labels are called in each batch.

    Raises:
        DataError: a batch is no such pickle.
    """
    train_labels, train_images = zip(*(batch(content, labels_key, PICTURE) for content in train), strict=True)
    test_labels, test_images = batch(test, labels_key, PICTURE)
    return _by_name(b"".join(train_images), b"".join(train_labels), test_images, test_labels)


def from_png(train: Sequence[bytes], train_labels: bytes, test: bytes, test_labels: bytes) -> Contents:
    """Decode PNG batches: one row a picture, its 1024 pixels left to right, top to bottom; labels as JSON lists.

    Args:
        train: the train batches in order.
        train_labels: JSON list of the labels of all train batches.
        test: the test batch.
        test_labels: JSON list of its labels.

    Raises:
        DataError: a batch is no such PNG, or the labels are no list of bytes.
    """
    train_images = b"".join(_planes(content).tobytes() for content in train)
    return _by_name(train_images, _labels(train_labels), _planes(test).tobytes(), _labels(test_labels))


def _by_name(*parts: bytes) -> Contents:
    """Return train images, train labels, test images and test labels, each by the name of its file."""
    return dict(zip((file.name for file in CIFAR10.files), parts, strict=True))


def _planes(png: bytes) -> NDArray[np.uint8]:
    """Decode one batch to [n, 3, 1024]: pixels come interleaved, and are stored plane by plane."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            pixels = np.asarray(image, dtype=np.uint8)  # [n, 1024, 3]
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"a batch is not a PNG file, or a truncated one ({error})") from error
    if pixels.shape[1:] != (_PIXELS, 3):
        raise DataError(f"a batch has the shape {list(pixels.shape)}, expected rows of {_PIXELS} RGB pixels")
    return pixels.transpose(0, 2, 1)


def _labels(text: bytes) -> bytes:
    try:
        return bytes(json.loads(text))
    except (TypeError, ValueError) as error:
        raise DataError(f"the labels are not a JSON list of numbers in 0..255 ({error})") from error
