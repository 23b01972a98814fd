"""Samples of flat images: which images, which classes, which labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from feedalign.errors import ArgumentError
from feedalign.lab.data import load, prepare
from feedalign.lab.experiments.common.sampling import Sample, image_sample


def sample(**changed: Any) -> Sample:
    asked = {"image_size": 0, "chosen": (), "train_images": 0, "noise": 0.0, "first_seed": 0, "draw": 0}
    return image_sample("digits", **{**asked, **changed})


def test_all_images_come_in_the_order_of_the_data_set_with_their_true_labels() -> None:
    found, data = sample(), load("digits")
    train_x, test_x = prepare(data)
    assert torch.equal(found.train_x, train_x)
    assert torch.equal(found.test_x, test_x)
    assert torch.equal(found.train_y, data.train_labels)
    assert torch.equal(found.test_y, data.test_labels)
    assert found.classes == 10
    assert not found.corrupted.any()


def test_images_are_averaged_down() -> None:
    assert sample(image_size=4).train_x.shape[1] == 16


def test_chosen_classes_become_numbers_in_their_order() -> None:
    found, data = sample(chosen=(7, 2)), load("digits")
    kept = (data.train_labels == 7) | (data.train_labels == 2)
    assert torch.equal(found.train_x, prepare(data)[0][kept])
    assert torch.equal(found.train_y == 0, data.train_labels[kept] == 7)
    assert torch.equal(found.train_y == 1, data.train_labels[kept] == 2)
    assert len(found.test_x) == len(found.test_y) == int(torch.isin(data.test_labels, torch.tensor([2, 7])).sum())
    assert found.classes == 2


def test_a_sample_holds_different_images_beside_their_labels() -> None:
    found, whole = sample(train_images=50), sample()
    places = [int((whole.train_x == image).all(1).nonzero()[0]) for image in found.train_x]
    assert len(set(places)) == 50
    assert torch.equal(whole.train_y[places], found.train_y)


def test_draws_and_first_seeds_have_images_and_noise_of_their_own() -> None:
    one = sample(train_images=50, noise=0.5)
    for other in (sample(train_images=50, noise=0.5, draw=1), sample(train_images=50, noise=0.5, first_seed=1)):
        assert not torch.equal(one.train_x, other.train_x)
        assert not torch.equal(one.corrupted, other.corrupted)


def test_corrupted_labels_are_those_that_differ_from_the_true_ones() -> None:
    clean, noisy, noisier = (sample(train_images=400, noise=noise) for noise in (0.0, 0.2, 0.5))
    assert torch.equal(noisy.train_x, clean.train_x), "the images do not depend on the noise"
    assert torch.equal(noisy.corrupted, noisy.train_y != clean.train_y)
    # One in ten of the labels that are drawn is the true one: 400 · 0.2 · 0.9 = 72 on average, ± 2.7.
    assert 80 - 18 <= int(noisy.corrupted.sum()) <= 80
    assert bool(noisier.corrupted[noisy.corrupted].all()), "more noise keeps the random labels of less noise"


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ((0, 10), "classes must be at least two different labels of digits, which are 0 to 9, got"),
        ((-1,), r"classes\[0\] must be a whole number of at least 0, got -1"),
        ((3, 3), "classes must be at least two different labels of digits, which are 0 to 9, got"),
    ],
)
def test_wrong_classes_are_named(chosen: tuple[int, ...], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        sample(chosen=chosen)


def test_more_images_than_there_are_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="train_images=99999, but there are 1442; give 0 for all"):
        sample(train_images=99999)
