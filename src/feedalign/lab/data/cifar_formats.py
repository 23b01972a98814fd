"""The encodings in which CIFAR-10 and CIFAR-100 arrive, all decoded to the four arrays that are stored.

Everywhere `train` are the train batches in order, and `test` is the test batch.
"""

from __future__ import annotations

import io
import json
import pickletools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feedalign.errors import DataError
from feedalign.lab.data.stored import CIFAR10, Contents

PICTURE = 3 * 32 * 32  # bytes: the red, the green and the blue plane
_PIXELS = 32 * 32
# The instructions of a pickle that hold texts and whole numbers.
_TEXTS = {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINUNICODE", "BINUNICODE"}
_NUMBERS = {"BININT1", "BININT2", "BININT"}


def from_records(train: Sequence[bytes], test: bytes, label_bytes: int = 1) -> Contents:
    """Decode the binary version: one record a picture, its label and then its red, green and blue planes, as bytes.

    There are `label_bytes` bytes before the planes, of which the last is the label. In CIFAR-100 the first is the label
    of a coarser division into 20 classes.

    Raises:
        DataError: a batch is no whole number of records.
    """
    record = label_bytes + PICTURE

    def decoded(content: bytes) -> tuple[bytes, bytes]:
        if len(content) % record:
            raise DataError(f"a batch has {len(content)} bytes, expected a multiple of {record}; it was truncated")
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
        return rows[:, label_bytes - 1].tobytes(), rows[:, label_bytes:].tobytes()

    return _joined(map(decoded, (*train, test)))


def from_pickles(train: Sequence[bytes], test: bytes, labels_key: str) -> Contents:
    """Decode the version for Python, in which the labels are called `labels_key`, without running the pickles.

    Raises:
        DataError: a batch is no such pickle.
    """
    return _joined(pickled_batch(content, labels_key, PICTURE) for content in (*train, test))


def pickled_batch(content: bytes, labels_key: str, record: int) -> tuple[bytes, bytes]:
    """Return the labels and the pixels of a batch, one byte each.

    A batch is a dictionary. The labels are the whole numbers between the text `labels_key` and the next text; the
    pixels are the one text as long as all pictures together, with `record` bytes a picture. The instructions of the
    pickle are only listed: a pickle is a program, and could run anything.

    Raises:
        DataError: it is no such pickle.
    """
    labels, pixels, in_labels = bytearray(), b"", False
    try:
        for instruction, value, _ in pickletools.genops(content):
            if instruction.name in _TEXTS:
                # Python 2 wrote its strings byte by byte; pickletools gives each byte as one character.
                text = value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")
                in_labels = text == labels_key.encode()
                if len(text) > len(pixels) and len(text) % record == 0:
                    pixels = text
            elif in_labels and instruction.name in _NUMBERS:
                labels.append(int(str(value)))
    except ValueError as error:  # also of a label that is no byte
        raise DataError(f"not a pickled batch, or a truncated one ({error})") from error
    if not labels or len(labels) * record != len(pixels):
        raise DataError(f"not a pickled batch: it holds {len(labels)} labels and {len(pixels)} bytes of pixels")
    return bytes(labels), pixels


def from_png(train: Sequence[bytes], train_labels: bytes, test: bytes, test_labels: bytes) -> Contents:
    """Decode PNG batches: one row a picture, its 1024 pixels left to right, top to bottom.

    The labels are JSON lists, one for all train batches and one for the test batch.

    Raises:
        DataError: a batch is no such PNG, or the labels are no list of bytes.
    """
    train_images = b"".join(_planes(content).tobytes() for content in train)
    return _by_name(train_images, _labels(train_labels), _planes(test).tobytes(), _labels(test_labels))


def _joined(batches: Iterable[tuple[bytes, bytes]]) -> Contents:
    """Put together the labels and the images of every batch; the test batch comes last."""
    *train, (test_labels, test_images) = batches
    labels, images = map(b"".join, zip(*train, strict=True))
    return _by_name(images, labels, test_images, test_labels)


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
