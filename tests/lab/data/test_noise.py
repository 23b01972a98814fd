"""Laws of label noise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedalign.errors import ArgumentError
from feedalign.lab.data import accuracy_by_mask, label_noise

CLASSES = 10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clean(n: int) -> torch.Tensor:
    return torch.arange(n) % CLASSES


@given(n=st.integers(0, 60), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_the_asked_number_is_chosen_and_no_other_label_changes(n: int, fraction: float, seed: int) -> None:
    labels = clean(n)
    noisy, mask = label_noise(labels, fraction, CLASSES, seeded(seed))
    assert int(mask.sum()) == round(fraction * n)
    assert torch.equal(noisy[~mask], labels[~mask])
    assert noisy.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert torch.equal(labels, clean(n))


def test_chosen_labels_are_uniform_over_all_classes_whatever_they_were() -> None:
    n = 200_000
    noisy, _ = label_noise(clean(n), 1.0, CLASSES, seeded())
    joint = torch.bincount(clean(n) * CLASSES + noisy, minlength=CLASSES**2).double()
    p = 1 / CLASSES**2
    # 100 counts within 5 standard errors: fails by chance once in 17 000 seeds, and the seed is fixed.
    assert (joint - n * p).abs().max() < 5 * (n * p * (1 - p)) ** 0.5


def test_every_sample_is_chosen_equally_often() -> None:
    n, draws, fraction = 50, 2000, 0.3
    generator = seeded()
    hits = sum(label_noise(clean(n), fraction, CLASSES, generator)[1].double() for _ in range(draws))
    assert isinstance(hits, torch.Tensor)
    # 50 counts within 5 standard errors: by chance once in 35 000 seeds, and the seed is fixed.
    assert (hits - draws * fraction).abs().max() < 5 * (draws * fraction * (1 - fraction)) ** 0.5


def test_more_noise_keeps_the_random_labels_of_less() -> None:
    labels = clean(100)
    less, mask_less = label_noise(labels, 0.2, CLASSES, seeded())
    more, mask_more = label_noise(labels, 0.7, CLASSES, seeded())
    assert bool(mask_more[mask_less].all())
    assert torch.equal(more[mask_less], less[mask_less])


def test_the_generator_decides_and_the_global_one_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (label_noise(clean(100), 0.5, CLASSES, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(ArgumentError, match=f"fraction must lie in .0, 1., got {fraction}"):
        label_noise(clean(10), fraction, CLASSES, seeded())


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(ArgumentError, match="labels run from 0 to 9, expected 0 to classes-1 = 4"):
        label_noise(clean(10), 0.5, 5, seeded())
    with pytest.raises(ArgumentError, match="labels run from -1 to 8"):
        label_noise(clean(10) - 1, 0.5, CLASSES, seeded())


def test_clean_and_corrupted_accuracy_are_told_apart() -> None:
    true = clean(2000)
    noisy, mask = label_noise(true, 0.4, CLASSES, seeded())
    knows_the_truth, memorised, wrong = true, noisy, (noisy + 1) % CLASSES
    apart = accuracy_by_mask(torch.stack([knows_the_truth, memorised, wrong]), noisy, mask)
    kept = float((noisy == true)[mask].double().mean())
    assert 0.05 < kept < 0.15, "one drawn label in ten is the true one"
    assert torch.equal(apart[0], torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(apart[1], torch.tensor([kept, 1.0, 0.0], dtype=torch.float64))
    changed = mask & (noisy != true)
    assert [float(accuracy) for accuracy in accuracy_by_mask(knows_the_truth, noisy, changed)] == [1.0, 0.0]


def test_both_accuracies_make_up_that_of_all_samples() -> None:
    noisy, mask = label_noise(clean(500), 0.3, CLASSES, seeded())
    predicted = torch.randint(CLASSES, (3, 500), generator=seeded(1))
    outside, inside = accuracy_by_mask(predicted, noisy, mask)
    whole = (predicted == noisy).double().mean(-1)
    assert torch.allclose(0.7 * outside + 0.3 * inside, whole, rtol=1e-12)


def test_without_noise_there_is_no_corrupted_accuracy() -> None:
    apart = accuracy_by_mask(clean(10), clean(10), torch.zeros(10, dtype=torch.bool))
    assert float(apart[0]) == 1
    assert bool(apart[1].isnan())


@pytest.mark.parametrize("shapes", [((3, 9), 10, 10), ((10,), 10, 9), ((9,), 10, 10)])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], int, int]) -> None:
    predicted, labels, mask = (torch.zeros(shape, dtype=torch.int64) for shape in shapes)
    with pytest.raises(ArgumentError, match=r"do not fit; expected \[\.\.\., n\], \[n\] and \[n\]"):
        accuracy_by_mask(predicted, labels, mask.bool())
