"""Both encodings of CIFAR-10 decode to the arrays they were made from, whatever is not one of them is refused."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from feedalign.errors import DataError
from feedalign.lab.data.cifar_formats import from_png, from_records
from feedalign.lab.data.stored import Contents

Files = dict[str, bytes]


def test_records_decode_to_what_was_encoded(tiny_cifar10: Contents, binary_batches: Files) -> None:
    *train, test = binary_batches.values()
    assert from_records(train, test) == tiny_cifar10


def test_png_batches_decode_to_what_was_encoded(tiny_cifar10: Contents, png_batches: Files) -> None:
    train_labels, test_labels, *train, test = png_batches.values()
    assert from_png(train, train_labels, test, test_labels) == tiny_cifar10


def test_half_a_record_is_refused(binary_batches: Files) -> None:
    *train, test = binary_batches.values()
    train[3] = train[3][:-1]
    with pytest.raises(DataError, match="a batch has 6145 bytes, expected a multiple of 3073"):
        from_records(train, test)


def test_a_truncated_png_is_refused(png_batches: Files) -> None:
    batch = png_batches["test_batch.png"]
    with pytest.raises(DataError, match="not a PNG file, or a truncated one"):
        from_png([batch[:-500]], b"[0, 1]", batch, b"[0, 1]")


def test_a_png_of_another_shape_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (784, 2)).save(buffer, "PNG")
    with pytest.raises(DataError, match=r"shape \[2, 784\], expected rows of 1024 RGB pixels"):
        from_png([buffer.getvalue()], b"[0, 1]", b"", b"[0, 1]")


@pytest.mark.parametrize("labels", [b"[1, 2", b'["cat"]', b"[1, 256]", b"null"])
def test_labels_that_are_no_bytes_are_refused(png_batches: Files, labels: bytes) -> None:
    batch = png_batches["test_batch.png"]
    with pytest.raises(DataError, match="labels are not a JSON list"):
        from_png([batch], labels, batch, b"[0, 1]")
