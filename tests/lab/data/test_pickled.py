"""A pickled batch is read by looking at its instructions; whatever is no batch is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from feedalign.errors import DataError
from feedalign.lab.data.cifar_formats import pickled_batch

Pickled = Callable[[bytes, int, str], bytes]
PICTURE = 3072


def records(n: int, label_bytes: int = 1) -> bytes:
    rng = np.random.default_rng(0)
    rows = rng.integers(256, size=(n, label_bytes + PICTURE), dtype=np.uint8)
    rows[:, label_bytes - 1] = np.arange(n) % 100
    return rows.tobytes()


def test_the_stand_in_is_a_pickle_that_python_itself_reads_to_the_same(pickled: Pickled) -> None:
    """Only here, where the test has written the pickle, is it run."""
    content = pickled(records(3), 1, "labels")
    loaded = pickle.loads(content, encoding="bytes")
    labels, pixels = pickled_batch(content, "labels", PICTURE)
    assert bytes(loaded[b"labels"]) == labels == bytes([0, 1, 2])
    assert loaded[b"data"].tobytes() == pixels


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_labels_and_pixels_come_back_from_a_batch_of_python_3(protocol: int) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(300, PICTURE), dtype=np.uint8).tobytes()
    labels = [k % 100 for k in range(300)]
    content = pickle.dumps({"fine_labels": labels, "data": pixels, "other": [1, 2]}, protocol)
    assert pickled_batch(content, "fine_labels", PICTURE) == (bytes(labels), pixels)


def test_other_lists_of_numbers_are_not_taken_for_labels(pickled: Pickled) -> None:
    content = pickled(records(4, label_bytes=2), 2, "fine_labels")
    assert pickled_batch(content, "fine_labels", PICTURE)[0] == bytes([0, 1, 2, 3])
    assert pickled_batch(content, "coarse_labels", PICTURE)[0] == bytes([0, 0, 0, 0])


@pytest.mark.parametrize("keep", [0, 10, 5000, -3])
def test_a_truncated_pickle_is_refused(pickled: Pickled, keep: int) -> None:
    with pytest.raises(DataError, match="not a pickled batch"):
        pickled_batch(pickled(records(3), 1, "labels")[:keep], "labels", PICTURE)


@pytest.mark.parametrize(
    "content",
    [
        {"labels": [1, 2], "data": bytes(PICTURE)},
        {"labels": [], "data": bytes(PICTURE)},
        {"labels": [300], "data": bytes(PICTURE)},
        {"labels": [-1], "data": bytes(PICTURE)},
        {"data": bytes(PICTURE)},
        [1, 2, 3],
    ],
)
def test_a_pickle_of_something_else_is_refused(content: object) -> None:
    with pytest.raises(DataError, match="not a pickled batch"):
        pickled_batch(pickle.dumps(content), "labels", PICTURE)
