"""Random streams: weights, feedback, data order and all else never hold the same numbers, whatever their seeds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import feedalign as fa
from feedalign import feedback, streams
from feedalign.networks import MLP, ConvNet, EnsembleMLP

# Of independent numbers, a correlation of n pairs has standard deviation 1/√n. The seeds are fixed, and beyond five
# standard deviations lies one pair in two million.
SIGMAS = 5
# Equal seeds, neighbouring seeds, and seeds that are equal in the 32 bits that torch reads.
SEEDS = (0, 1, 2, 2**32)
PURPOSES = (
    "weights", "feedback", "shared feedback", "fitted feedback", "magnitudes", "order", "label noise", "simulation",
    "start", "data", "teacher", "readout", "network", "monitor", "sketch",
)  # fmt: skip
NETWORKS: dict[str, Any] = {
    "MLP": lambda seed: MLP([40, 64, 64, 10], seed=seed),
    "EnsembleMLP": lambda seed: EnsembleMLP(1, [40, 64, 64, 10], seeds=[seed]),
    "ConvNet": lambda seed: ConvNet((3, 12, 12), (8, 8, 8), seed=seed),
}
DENSE: list[Any] = [
    feedback.Gaussian(), feedback.Uniform(), feedback.Rademacher(), feedback.Orthogonal(), feedback.Sparse(0.5),
    feedback.LowRank(2), feedback.Shared(), feedback.Magnitudes(), feedback.Conditioned(torch.eye(10) + 0.1),
    feedback.Automatic(), feedback.Tokenwise(), feedback.Sketched(4), feedback.InFull(),
]  # fmt: skip
OF_IMAGES: list[Any] = [feedback.Channelwise(), feedback.Smooth(2), feedback.Toeplitz(), feedback.FromMask()]
NOT_RANDOM = {"Aligned", "FromWeights", "FromArray"}
# Recipes with independent entries: two of their matrices are as unrelated as two lists of independent numbers.
INDEPENDENT: list[Any] = [feedback.Gaussian(), feedback.Uniform(), feedback.Magnitudes()]


def weights(network: str, seed: int) -> dict[str, Tensor]:
    """Every weight matrix of a network, as a row of numbers in the order in which they were drawn."""
    parameters = dict(NETWORKS[network](seed).named_parameters())
    return {name: p.detach().flatten() for name, p in parameters.items() if p.numel() >= 500}


def matrices(recipe: Any, seed: int) -> dict[str, Tensor]:
    """The feedback of every point, as a row of numbers in the order in which they were drawn."""
    images = any(recipe is each for each in OF_IMAGES)
    net = fa.DFA(
        NETWORKS["ConvNet" if images else "MLP"](0),
        feedback=recipe,
        seed=seed,
        example_input=torch.zeros(1, 3, 12, 12) if images else torch.zeros(1, 40),
    )
    return {name: F.double().flatten() for name, F in net.feedback_matrices.items()}


def order(seed: int) -> Tensor:
    return torch.randperm(640, generator=streams.torch_generator(seed, "order")).double()


def assert_unrelated(one: Tensor, other: Tensor, what: str) -> None:
    """The first 64 numbers stand in another order, and the correlation is within its sampling error."""
    assert not torch.equal(one[:64].argsort(stable=True), other[:64].argsort(stable=True)), what
    n = min(len(one), len(other))
    correlation = float(torch.corrcoef(torch.stack([one[:n].double(), other[:n].double()]))[0, 1])
    assert abs(correlation) < SIGMAS / math.sqrt(n), f"{what}: correlation {correlation:.3f} of {n} numbers"


def test_every_random_recipe_is_tried() -> None:
    others = {"Convolution", "Factors", "Feedback", "Form", "Place"}
    recipes = {name for name in feedback.__all__ if name[0].isupper()} - others
    assert {type(recipe).__name__ for recipe in DENSE + OF_IMAGES} == recipes - NOT_RANDOM


@pytest.mark.parametrize("recipe", DENSE + OF_IMAGES, ids=lambda recipe: type(recipe).__name__)
@pytest.mark.parametrize("network", NETWORKS)
def test_weights_and_feedback_are_unrelated(network: str, recipe: Any) -> None:
    for seed, other in itertools.product(SEEDS, SEEDS):
        for (layer, W), (point, F) in itertools.product(
            weights(network, seed).items(), matrices(recipe, other).items()
        ):
            assert_unrelated(W, F, f"weights {layer} of seed {seed}, feedback {point} of seed {other}")


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_and_data_order_are_unrelated(network: str) -> None:
    for seed, other in itertools.product(SEEDS, SEEDS):
        for layer, W in weights(network, seed).items():
            assert_unrelated(W, order(other), f"weights {layer} of seed {seed}, order of seed {other}")


@pytest.mark.parametrize("recipe", DENSE + OF_IMAGES, ids=lambda recipe: type(recipe).__name__)
def test_feedback_and_data_order_are_unrelated(recipe: Any) -> None:
    for seed, other in itertools.product(SEEDS, SEEDS):
        for point, F in matrices(recipe, seed).items():
            assert_unrelated(F, order(other), f"feedback {point} of seed {seed}, order of seed {other}")


@pytest.mark.parametrize("recipe", INDEPENDENT, ids=lambda recipe: type(recipe).__name__)
def test_the_feedback_of_two_points_or_two_seeds_is_unrelated(recipe: Any) -> None:
    drawn = {(seed, point): F for seed in SEEDS for point, F in matrices(recipe, seed).items()}
    for (one, F), (other, G) in itertools.combinations(drawn.items(), 2):
        assert_unrelated(F, G, f"seed and point {one}, {other}")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_weights_of_two_layers_or_two_seeds_are_unrelated(network: str) -> None:
    drawn = {(seed, layer): W for seed in SEEDS for layer, W in weights(network, seed).items()}
    for (one, W), (other, V) in itertools.combinations(drawn.items(), 2):
        assert_unrelated(W, V, f"seed and layer {one}, {other}")


def test_the_magnitudes_of_a_batch_are_unrelated_to_those_at_the_start_and_of_another_batch() -> None:
    for seed in SEEDS:
        net = fa.SignSymmetry(MLP([40, 64, 64, 10], seed=seed), seed=seed, magnitude="batchwise")
        drawn = [(f"start, {name}", F.clone().flatten()) for name, F in net.feedback_matrices.items()]
        for batch in range(2):
            net(torch.ones(1, 40))
            drawn += [(f"batch {batch}, {name}", F.clone().flatten()) for name, F in net.feedback_matrices.items()]
        drawn += list(weights("MLP", seed).items())
        for (one, F), (other, G) in itertools.combinations(drawn, 2):
            assert_unrelated(F, G, f"seed {seed}: {one}; {other}")


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_streams_of_all_purposes_and_seeds_are_unrelated(library: str) -> None:
    n, keys = 2048, list(itertools.product(SEEDS, PURPOSES))
    if library == "numpy":
        drawn = np.array([streams.numpy_generator(*key).random(n) for key in keys])
    else:
        drawn = np.array([torch.rand(n, generator=streams.torch_generator(*key)).double().numpy() for key in keys])
    correlations = np.corrcoef(drawn) - np.eye(len(keys))
    assert np.abs(correlations).max() < SIGMAS / math.sqrt(n)
    assert len({row[:64].tobytes() for row in drawn}) == len(keys)


def test_a_shared_stream_would_be_found() -> None:
    """The control: weights and uniform feedback of one generator, as they were before streams had purposes."""
    W, F = (torch.rand(640, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    with pytest.raises(AssertionError, match="one stream"):
        assert_unrelated(2 * W - 1, F / 8, "one stream")
    F[:64] = torch.rand(64, generator=torch.Generator().manual_seed(1))
    with pytest.raises(AssertionError, match=r"one stream: correlation 0\.\d+ of 640 numbers"):
        assert_unrelated(2 * W - 1, F / 8, "one stream")
