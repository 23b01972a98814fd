"""Conditioning against theory: exact weak alignment from zero, spectra against numpy, and what has none."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.alignment import output_errors
from feedalign.errors import ArgumentError, OutputError


def batch(n: int = 40, features: int = 6, outputs: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    return x, x @ torch.randn(features, outputs, generator=generator, dtype=torch.float64)


def summed(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum() / 2


def linear(widths: list[int]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths))).double()


def test_from_zero_weights_weak_alignment_is_exact_and_its_matrices_are_found() -> None:
    """The recursion of the alignment matrices beside a network that is trained by DFA."""
    x, y = batch()
    net = fa.DFA(linear([6, 20, 15, 3]), seed=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    F1, F2 = net.feedback_matrices.values()
    A1, A2, A3 = torch.zeros(3, 6).double(), torch.zeros(3, 3).double(), torch.zeros(3, 3).double()
    for _ in range(30):
        c1 = x @ A1.T
        c2 = c1 @ (A2 @ F1.T @ F1).T
        e = c2 @ (A3 @ F2.T @ F2).T - y
        for A, below in ((A1, x), (A2, c1), (A3, c2)):
            A -= 1e-3 * e.T @ below
        loss = summed(net(x), y)
        net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in net.model.parameters():
                assert parameter.grad is not None
                parameter.sub_(1e-3 * parameter.grad)
    measured = fa.conditioning(net, summed, x, y)
    assert list(measured.layers) == ["0", "1", "2"]
    for found, expected in zip(measured.layers.values(), (A1, A2, A3), strict=True):
        torch.testing.assert_close(found.matrix, expected, rtol=1e-9, atol=1e-12)
        assert found.residual < 1e-10
        assert found.spectrum.condition_number == pytest.approx(np.linalg.cond(expected.numpy()), rel=1e-6)


def test_random_weights_do_not_lie_along_the_feedback() -> None:
    x, y = batch()
    measured = fa.conditioning(fa.DFA(linear([6, 200, 200, 3]), seed=1), summed, x, y)
    # A random matrix has C of n columns along F, and C² of n² entries along both.
    assert measured.layers["0"].residual == pytest.approx(math.sqrt(1 - 3 / 200), abs=0.02)
    assert measured.layers["1"].residual > 0.999


def test_the_error_s_spectrum_is_that_of_its_second_moment() -> None:
    x, y = batch()
    net = fa.DFA(linear([6, 10, 3]), seed=1)
    with torch.no_grad():
        e = (net(x) - y).numpy()
    eigenvalues = np.linalg.eigvalsh(e.T @ e / len(e))[::-1]
    error = fa.conditioning(net, summed, x, y).error
    np.testing.assert_allclose(error.values, eigenvalues, rtol=1e-9)
    assert error.rank == 3
    assert error.condition_number == pytest.approx(eigenvalues[0] / eigenvalues[-1], rel=1e-9)
    share = eigenvalues / eigenvalues.sum()
    assert error.effective_rank == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-9)
    # The loss's reduction scales the values and nothing else.
    scaled = fa.conditioning(net, lambda output, target: 10 * summed(output, target), x, y).error
    assert scaled.condition_number == pytest.approx(error.condition_number, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_errors_of_a_softmax_have_rank_one_less_than_there_are_classes(dtype: torch.dtype) -> None:
    x, _ = batch(n=300)
    labels = torch.arange(300) % 4
    net = fa.DFA(fa.networks.MLP([6, 10, 4], seed=0), seed=1).to(dtype)
    error = fa.conditioning(net, functional.cross_entropy, x.to(dtype), labels).error
    assert error.rank == 3
    assert 1 < error.condition_number < 1e3
    assert 1 < error.effective_rank <= 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_finds_the_same_conditioning(dtype: torch.dtype) -> None:
    """Many samples and inputs, of which each number is off by up to a thousandth, or a hundredth."""
    x, y = batch(n=500, features=100)
    net = fa.DFA(linear([100, 50, 3]), seed=1)
    exact = fa.conditioning(net, summed, x, y / 5)
    found = fa.conditioning(net.to(dtype), summed, x.to(dtype), y.to(dtype) / 5)
    assert found.error.rank == 3
    assert found.error.condition_number == pytest.approx(exact.error.condition_number, rel=0.05)
    for name, layer in found.layers.items():
        assert layer.spectrum.rank == 3
        assert layer.spectrum.condition_number == pytest.approx(exact.layers[name].spectrum.condition_number, rel=0.05)
        assert layer.residual == pytest.approx(exact.layers[name].residual, abs=0.01)


def test_the_errors_of_a_model_and_of_silence() -> None:
    x, y = batch()
    net = fa.DFA(linear([6, 10, 3]), seed=1)
    torch.testing.assert_close(output_errors(net, summed, x, y), net(x).detach() - y)
    torch.testing.assert_close(output_errors(net, summed, x, y, silent=True), -y)
    labels = torch.arange(40) % 3
    silent = output_errors(net, functional.cross_entropy, x, labels, silent=True)
    torch.testing.assert_close(silent, (1 / 3 - functional.one_hot(labels, 3).double()) / 40)


def test_an_ensemble_has_the_spectra_of_its_networks() -> None:
    ensemble = fa.networks.EnsembleMLP(3, [6, 9, 8, 3], bias=False)
    x, y = (side.float().expand(3, -1, -1) for side in batch())
    together = fa.conditioning(fa.DFA(ensemble, seed=1), summed, x, y)
    (first, second, third) = together.layers.values()
    assert first.matrix.shape == (3, 3, 6)
    assert second.matrix.shape == third.matrix.shape == (3, 3, 3)
    conditions = [np.linalg.cond(matrix.numpy()) for matrix in second.matrix]
    assert second.spectrum.condition_number == pytest.approx(float(np.exp(np.log(conditions).mean())), rel=1e-6)


def test_a_convolution_has_no_alignment_matrix_and_says_so() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Tanh(), nn.Linear(8, 3))
    net = fa.DFA(model, points=("2",), seed=0)
    measured = fa.conditioning(net, functional.cross_entropy, torch.randn(5, 1, 4, 4), torch.arange(5) % 3)
    assert list(measured.layers) == ["3"]
    assert "not one matrix" in measured.undefined["0"]


def test_it_leaves_gradients_and_weights_alone() -> None:
    x, y = batch()
    net = fa.DFA(linear([6, 10, 3]), seed=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fa.conditioning(net, summed, x, y)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_has_none_is_refused() -> None:
    x, y = batch()
    with pytest.raises(ArgumentError, match="FA sends no error straight from the output to a layer"):
        fa.conditioning(fa.FA(linear([6, 10, 3]), seed=1), summed, x, y)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="expected a model wrapped in a rule"):
        fa.conditioning(linear([6, 10, 3]), summed, x, y)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="one number with a gradient"):
        fa.conditioning(fa.DFA(linear([6, 10, 3]), seed=1), lambda output, target: output - target, x, y)


@pytest.mark.parametrize("widths", [[6, 4, 5, 30], [6, 40, 5, 30], [6, 4, 40, 30], [6, 40, 35, 30]])
def test_the_spectrum_is_that_of_the_matrix_with_more_outputs_than_units_too(widths: list[int]) -> None:
    x, y = batch(outputs=30)
    for layer in fa.conditioning(fa.DFA(linear(widths), seed=1), summed, x, y).layers.values():
        singular = np.linalg.svd(layer.matrix.numpy(), compute_uv=False)
        np.testing.assert_allclose(layer.spectrum.values, singular, rtol=1e-9, atol=1e-12 * singular[0])
        present = singular[singular > 1e-12 * singular[0]]
        assert layer.spectrum.rank == len(present)
        assert layer.spectrum.condition_number == pytest.approx(present[0] / present[-1])
