"""Laws of resizing, standardising and flattening."""

from __future__ import annotations

import pytest
import torch

from feedalign.errors import ArgumentError
from feedalign.lab.data import flatten, load, prepare, resize, standardise

# The rounding of sums of a few hundred numbers of order 1, with room to spare.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def images(n: int = 20, c: int = 3, h: int = 12, w: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, c, h, w), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
def test_resizing_to_a_divisor_averages_blocks(size: int) -> None:
    x, block = images(), 12 // size
    expected = x.double().reshape(20, 3, size, block, size, block).mean(dim=(3, 5))
    assert torch.allclose(resize(x, size).double(), expected, rtol=1e-6)
    assert torch.allclose(resize(x.double(), size), expected, rtol=1e-14)


@pytest.mark.parametrize("size", [1, 5, 7, 12, 30])
def test_resizing_keeps_constants_and_their_scale(size: int) -> None:
    x = torch.full((2, 3, 12, 12), 200, dtype=torch.uint8)
    assert torch.equal(resize(x, size), torch.full((2, 3, size, size), 200.0))


def test_resizing_is_linear_and_blind_to_the_order_of_samples_and_channels() -> None:
    x, y = images(seed=1).double(), images(seed=2).double()
    assert torch.allclose(resize(2 * x - 3 * y, 5), 2 * resize(x, 5) - 3 * resize(y, 5), rtol=1e-12, atol=1e-11)
    assert torch.equal(resize(x.flip(0, 1), 5), resize(x, 5).flip(0, 1))


def test_resizing_keeps_floating_types_and_makes_bytes_float32() -> None:
    assert resize(images(), 5).dtype == torch.float32
    assert resize(images().double(), 5).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardised_train_channels_have_mean_0_and_deviation_1(dtype: torch.dtype) -> None:
    train, _ = standardise(images().to(dtype), images())
    std, mean = torch.std_mean(train, dim=(0, 2, 3), correction=0)
    assert torch.allclose(mean, torch.zeros(3, dtype=dtype), rtol=0, atol=TOLERANCE[dtype])
    assert torch.allclose(std, torch.ones(3, dtype=dtype), rtol=0, atol=TOLERANCE[dtype])


def test_test_images_are_mapped_by_the_train_images_alone() -> None:
    train, test = images(seed=1).double(), images(7, seed=2).double()
    both = torch.cat([train, test])
    assert torch.equal(standardise(train, both)[1], torch.cat(standardise(train, test)))


def test_standardising_forgets_brightness_and_contrast() -> None:
    train, test = images(seed=1).double(), images(7, seed=2).double()
    gain, offset = torch.tensor([2.0, 0.1, 30.0]).reshape(3, 1, 1), torch.tensor([-5.0, 0.0, 7.0]).reshape(3, 1, 1)
    for plain, changed in zip(
        standardise(train, test), standardise(gain * train + offset, gain * test + offset), strict=True
    ):
        assert torch.allclose(plain, changed, rtol=0, atol=1e-6)  # 0.1 is a float32 here


def test_a_constant_channel_is_shifted_but_not_scaled() -> None:
    train = torch.full((4, 1, 2, 2), 9.0)
    shifted, test = standardise(train, train + 3)
    assert torch.equal(shifted, torch.zeros_like(train))
    assert torch.equal(test, torch.full_like(train, 3))


def test_arguments_are_left_as_they_were() -> None:
    x = images().double()
    before = x.clone()
    standardise(x, x)
    resize(x, 4)
    assert torch.equal(x, before)


def test_flattening_goes_channel_by_channel() -> None:
    x = images()
    assert torch.equal(flatten(x), torch.stack([torch.cat([plane.ravel() for plane in image]) for image in x]))


def test_prepared_data_is_resized_then_standardised_then_flat() -> None:
    data = load("digits")
    train, test = prepare(data, size=4)
    expected = standardise(resize(data.train_images, 4), resize(data.test_images, 4))
    assert torch.equal(train, expected[0].flatten(1))
    assert torch.equal(test, expected[1].flatten(1))
    assert train.dtype == test.dtype == torch.float32


def test_without_a_size_the_images_keep_theirs() -> None:
    data = load("digits")
    assert [x.shape for x in prepare(data)] == [(data.train_labels.numel(), 64), (data.test_labels.numel(), 64)]


def test_what_is_no_batch_of_images_is_refused() -> None:
    vectors = torch.zeros(5, 64)
    with pytest.raises(ArgumentError, match=r"must be \[n, c, h, w\], got shape \[5, 64\]"):
        resize(vectors, 4)
    with pytest.raises(ArgumentError, match=r"got shape \[5, 64\]"):
        standardise(vectors, images())
    with pytest.raises(ArgumentError, match=r"got shape \[5, 64\]"):
        standardise(images(), vectors)


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_pixel_is_refused(size: int) -> None:
    with pytest.raises(ArgumentError, match=f"at least 1 pixel, got {size}"):
        resize(images(), size)
