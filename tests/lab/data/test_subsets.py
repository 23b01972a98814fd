"""Laws of parts of a data set: which images are kept, with which labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from feedalign.errors import ArgumentError
from feedalign.lab.data import ImageData, load

WHOLE = load("digits")


def pairs(data: ImageData) -> list[tuple[bytes, int]]:
    """Image and label of every training sample."""
    return list(zip((image.numpy().tobytes() for image in data.train_images), data.train_labels.tolist(), strict=True))


def test_a_class_subset_keeps_exactly_these_classes_and_numbers_them_anew() -> None:
    part = load("digits", classes=(7, 2, 5))
    assert part.classes == 3
    for name in ("train", "test"):
        images, labels = getattr(part, f"{name}_images"), getattr(part, f"{name}_labels")
        all_images, all_labels = getattr(WHOLE, f"{name}_images"), getattr(WHOLE, f"{name}_labels")
        wanted = torch.isin(all_labels, torch.tensor([7, 2, 5]))
        assert torch.equal(images, all_images[wanted])
        assert torch.equal(torch.tensor([7, 2, 5])[labels], all_labels[wanted])
        assert labels.dtype == torch.int64


def test_all_classes_in_order_are_the_whole_set() -> None:
    part = load("digits", classes=range(10))
    assert pairs(part) == pairs(WHOLE)
    assert torch.equal(part.test_labels, WHOLE.test_labels)


def test_a_sample_subset_is_drawn_without_replacement_and_images_keep_their_labels() -> None:
    part = load("digits", samples=300)
    assert len(part.train_images) == len(part.train_labels) == 300
    of_whole = pairs(WHOLE)
    assert all(pair in of_whole for pair in pairs(part))
    everything = load("digits", samples=len(WHOLE.train_labels))
    assert sorted(pairs(everything)) == sorted(of_whole)
    assert torch.equal(part.test_images, WHOLE.test_images)
    assert part.classes == 10


def test_fewer_samples_are_the_first_of_more() -> None:
    assert pairs(load("digits", samples=50)) == pairs(load("digits", samples=200))[:50]


def test_every_class_is_drawn_as_often_as_it_occurs() -> None:
    counts = torch.stack([load("digits", samples=700, seed=seed).train_labels.bincount() for seed in range(20)])
    share = 700 / len(WHOLE.train_labels)
    expected = WHOLE.train_labels.bincount() * share
    # Draws without replacement vary less than binomial ones. Ten means within 4 standard errors; the seeds are fixed.
    assert ((counts.double().mean(0) - expected).abs() < 4 * (expected * (1 - share) / 20).sqrt()).all()


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (load("digits", samples=100, seed=seed) for seed in (0, 0, 1))
    assert pairs(first) == pairs(again) != pairs(other)
    assert torch.equal(state, torch.get_rng_state())


def test_samples_are_drawn_among_the_images_of_the_classes() -> None:
    part = load("digits", classes=(0, 1), samples=100)
    assert len(part.train_labels) == 100
    of_both = pairs(load("digits", classes=(0, 1)))
    assert all(pair in of_both for pair in pairs(part))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": (1,)}, r"classes must be at least two different labels of digits, which are 0 to 9, got \(1,\)"),
        ({"classes": (1, 1)}, "at least two different labels of digits"),
        ({"classes": (1, 10)}, "at least two different labels of digits"),
        ({"classes": (1, -1)}, "classes"),
        ({"classes": 3}, "classes"),
        ({"samples": 0}, "samples must be a whole number of at least 1 and at most 1442, got 0; digits has 1442"),
        ({"samples": 1443}, "at most 1442, got 1443; digits has 1442 training images here"),
        ({"samples": 2.5}, "samples must be a whole number"),
    ],
)
def test_parts_that_are_not_there_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        load("digits", **arguments)
