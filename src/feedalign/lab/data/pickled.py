"""Read what a pickled batch of CIFAR holds without running it: a pickle is a program, and could run anything."""

from __future__ import annotations

import pickletools

from feedalign.errors import DataError

_TEXTS = {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINUNICODE", "BINUNICODE"}
_NUMBERS = {"BININT1", "BININT2", "BININT"}


def batch(content: bytes, labels_key: str, record: int) -> tuple[bytes, bytes]:
    """Return the labels and the pixels of a batch, one byte each.

    A batch is a dictionary. The labels are the whole numbers between the text `labels_key` and the next text; the
    pixels are the one text as long as all pictures together. The instructions of the pickle are only listed.

    Args:
        content: the pickle.
        labels_key: the dictionary's key of the labels.
        record: bytes of a picture.

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
