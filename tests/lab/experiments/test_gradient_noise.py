"""Noise on gradients: its length, its angle, who shares it, and what it is measured as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from feedalign.lab.experiments.common.ensemble_training import EnsembleTraining
from feedalign.lab.experiments.common.gradient_noise import GradientNoise, NoiseKind, cosines_with_true
from feedalign.lab.runs import compute_job
from feedalign.networks import EnsembleMLP

TINY = EnsembleTraining(
    dataset="digits", train_images=160, hidden=(40, 40), activation="tanh", rule="backprop", lr=3e-3, draw=0, epochs=4,
    networks=2, measurements=3, probe=30,
)  # fmt: skip


def with_gradients() -> list[nn.Parameter]:
    weights = list(EnsembleMLP(3, [60, 50, 10], bias=False).parameters())
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(7))
    return weights


@pytest.mark.parametrize("kind", ["random", "fixed"])
@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_the_noise_has_its_length_and_the_angle_that_belongs_to_the_length(kind: NoiseKind, norm: float) -> None:
    weights = with_gradients()
    before = [weight.grad.clone() for weight in weights if weight.grad is not None]
    GradientNoise(kind, norm, 0, 0).add(weights)
    for weight, gradient in zip(weights, before, strict=True):
        assert weight.grad is not None
        lengths = (weight.grad - gradient).flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((3,), norm))
    # A random angle in 3000 and in 500 dimensions has a cosine of up to 4/√500 = 0.18.
    cosines = cosines_with_true(weights, before)
    torch.testing.assert_close(cosines, torch.full_like(cosines, 1 / np.sqrt(1 + norm**2)), rtol=0, atol=0.15)


def added(kind: NoiseKind, step: int = 0, draw: int = 0, first_seed: int = 0) -> torch.Tensor:
    """The directions of the noise on the first weights, [network, numbers]."""
    weights = with_gradients()
    gradient = weights[0].grad
    assert gradient is not None
    before = gradient.clone()
    GradientNoise(kind, 1.0, first_seed, draw, step).add(weights)
    return nn.functional.normalize((gradient - before).flatten(1), dim=1)


def test_fixed_noise_is_one_direction_for_all_steps_and_networks_of_a_draw() -> None:
    one = added("fixed")
    torch.testing.assert_close(one[0], one[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(one, added("fixed", step=5), rtol=0, atol=1e-5)
    for other in (added("fixed", draw=1), added("fixed", first_seed=1)):
        assert float((one * other).sum(1).abs().max()) < 0.1


def test_random_noise_is_another_one_for_every_step_and_network() -> None:
    one = added("random", step=3)
    torch.testing.assert_close(one, added("random", step=3), rtol=0, atol=0)
    assert float((one[0] * one[1]).sum().abs()) < 0.1
    for other in (added("random", step=4), added("random", step=3, draw=1), added("random", step=3, first_seed=1)):
        assert float((one * other).sum(1).abs().max()) < 0.1


def test_without_noise_gradients_stay_as_they_are_and_missing_ones_stay_missing() -> None:
    weights = with_gradients()
    gradient = weights[0].grad
    assert gradient is not None
    before = gradient.clone()
    GradientNoise("none", 5.0, 0, 0).add(weights)
    assert torch.equal(gradient, before)
    weights[1].grad = None
    GradientNoise("fixed", 5.0, 0, 0).add(weights)
    assert weights[1].grad is None
    assert torch.isnan(cosines_with_true([weights[1]], [before])).all()


def test_the_update_alignment_of_backprop_is_1_and_with_noise_it_is_that_of_the_noise() -> None:
    plain = compute_job(TINY)
    np.testing.assert_allclose(plain.update_alignment, 1.0, atol=1e-6)
    noisy = compute_job(replace(TINY, noise_kind="random", noise_norm=2.0))
    np.testing.assert_allclose(noisy.update_alignment, 1 / np.sqrt(5), atol=0.08)
    assert not noisy.isel(epoch=-1).equals(plain.isel(epoch=-1))


def test_the_update_alignment_of_dfa_rises_and_of_the_readout_alone_there_is_none() -> None:
    found = compute_job(replace(TINY, rule="dfa", epochs=30, feedback_scale=1.0))
    start, end = (found.update_alignment.isel(epoch=when) for when in (0, -1))
    assert float(abs(start).max()) < 0.4
    assert float(end.min()) > 0.4
    assert compute_job(replace(TINY, rule="readout-only")).update_alignment.isnull().all()


def test_fixed_noise_brings_the_networks_together_and_random_noise_does_not() -> None:
    fixed, random = (
        float(compute_job(replace(TINY, lr=0.01, epochs=20, noise_kind=kind, noise_norm=2.0)).overlap.isel(epoch=-1)[0])
        for kind in ("fixed", "random")
    )
    assert fixed > 0.3
    assert abs(random) < 0.15
