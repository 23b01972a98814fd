"""Measures of feedback stored by few numbers: the same as with all entries, and without a Tensor of the size of F."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import feedalign as fa
from feedalign import feedback
from feedalign.errors import ArgumentError
from feedalign.feedback import Channelwise, Shared, Sketched, Tokenwise
from feedalign.rules.matrices import SKETCH

CLASSES = 7
CLOSE: Any = {"rtol": 1e-9, "atol": 1e-11}


def filled(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator).mul_(0.5)
    return model


def images(groups: int = 1) -> nn.Module:
    """Three convolutions that are the only weights between their points, and a dense readout of an image."""
    return filled(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=groups),
            nn.Tanh(),
            nn.Conv2d(6, 4, (1, 3), groups=groups),
            nn.Flatten(),
            nn.Linear(12, 9),
            nn.Tanh(),
            nn.Linear(9, CLASSES),
        )
    )


class Tokens(nn.Module):
    """Tokens whose features are side by side before the dense layers: one matrix from 3 · 4 features to 6."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.two = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Unflatten(1, (3, 2)))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.head(self.two(self.one(x)))
        return h


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def case(kind: str) -> tuple[nn.Module, tuple[str, ...], Tensor]:
    """Return a model, its points and an input."""
    if kind == "tokens":
        return filled(Tokens()), ("one", "two"), numbers(5, 3, 3)
    if kind == "dense":
        return filled(fa.networks.MLP([3, 5, 8, 10, CLASSES])), ("1", "3", "5"), numbers(5, 3)
    return images(2 if kind == "groups" else 1), ("1", "3", "4", "7"), numbers(5, 2, 6, 6)


OF_IMAGES = Channelwise({"1": 4, "3": 6, "4": 4})
CASES: list[tuple[str, Any]] = [
    ("images", OF_IMAGES),
    ("images", Channelwise({"1": 4, "4": 4})),
    ("images", Shared()),
    ("images", Sketched(3)),
    ("images", Sketched(3, OF_IMAGES)),
    ("groups", OF_IMAGES),
    ("groups", Sketched(5, OF_IMAGES)),
    ("tokens", Tokenwise()),
    ("tokens", Tokenwise(Shared())),
    ("tokens", Sketched(3, Tokenwise())),
    ("dense", Shared()),
    ("dense", Sketched(CLASSES)),
    ("dense", Sketched(3, Shared())),
    ("dense", Sketched(6)),
]
NAMES = [f"{kind}-{recipe}" for kind, recipe in CASES]
both = pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)


def pair(kind: str, recipe: Any) -> tuple[Any, Any, Tensor]:
    """Return a model with the recipe's feedback, the same with all entries of the same feedback, and an input."""
    model, points, x = case(kind)
    net = fa.DFA(model, points, recipe, seed=3, example_input=x)
    entries = feedback.FromArray(net.feedback_matrices)
    return net, fa.DFA(case(kind)[0], points, entries, example_input=x), x


def assert_same_conditioning(net: Any, full: Any, x: Tensor) -> None:
    y = torch.arange(len(x)) % CLASSES
    found, expected = (fa.conditioning(each, functional.cross_entropy, x, y) for each in (net, full))
    assert found.undefined == expected.undefined
    assert found.layers.keys() == expected.layers.keys()
    assert found.layers
    for name, layer in found.layers.items():
        other = expected.layers[name]
        torch.testing.assert_close(layer.matrix, other.matrix, **CLOSE)
        torch.testing.assert_close(layer.spectrum.values, other.spectrum.values, **CLOSE)
        assert layer.shape == tuple(layer.matrix.shape)
        assert layer.spectrum.rank == other.spectrum.rank
        assert layer.spectrum.condition_number == pytest.approx(other.spectrum.condition_number, rel=1e-7)
        assert layer.residual == pytest.approx(other.residual, abs=1e-10)


@both
def test_weight_alignment_is_that_of_all_entries(kind: str, recipe: Any) -> None:
    net, full, _ = pair(kind, recipe)
    found, expected = fa.weight_alignment(net), fa.weight_alignment(full)
    assert found.undefined == expected.undefined
    assert found.layers == pytest.approx(expected.layers, abs=1e-12)
    assert found.total == pytest.approx(expected.total, abs=1e-12)


@both
def test_conditioning_is_that_of_all_entries(kind: str, recipe: Any) -> None:
    assert_same_conditioning(*pair(kind, recipe))


@both
def test_alignability_is_that_of_all_entries(kind: str, recipe: Any) -> None:
    net, full, _ = pair(kind, recipe)
    found, expected = fa.alignability(net), fa.alignability(full)
    assert found.undefined == expected.undefined
    assert found.layers.keys() == expected.layers.keys()
    for name, layer in found.layers.items():
        other = expected.layers[name]
        assert layer.bound == pytest.approx(other.bound, abs=1e-9)
        assert (layer.random, layer.channelwise) == (other.random, other.channelwise)


def test_the_measured_layers_are_there() -> None:
    """So the laws above do not hold of nothing."""
    assert list(fa.weight_alignment(pair("images", OF_IMAGES)[0]).layers) == ["2", "4", "6", "8"]
    assert list(fa.weight_alignment(pair("tokens", Tokenwise())[0]).layers) == ["two.1", "head.1"]
    net, _, x = pair("dense", Shared())
    assert list(fa.conditioning(net, functional.cross_entropy, x, torch.arange(5)).layers) == ["0", "2", "4", "6"]


@pytest.mark.parametrize("whole", ["1", "3", "5"])
def test_one_point_may_hold_all_entries_while_the_others_have_a_sketch(whole: str) -> None:
    """As after loading a state in which one matrix is saved with all its entries."""
    net, full, x = pair("dense", Sketched(3))
    state = net.state_dict()
    state[f"feedback.{whole}"] = full.state_dict()[f"feedback.{whole}"]
    assert f"feedback.{SKETCH}" in state
    net.load_state_dict(state)
    assert {name: form.is_full for name, form in net.feedback.forms.items()} == {
        name: name == whole for name in ("1", "3", "5")
    }
    assert fa.weight_alignment(net).layers == pytest.approx(fa.weight_alignment(full).layers, abs=1e-12)
    assert_same_conditioning(net, full, x)


def test_an_ensemble_has_the_angles_and_the_spectra_of_its_networks() -> None:
    def wrapped(model: nn.Module) -> Any:
        return fa.DFA(model.double(), feedback=Sketched(2, Shared()), seed=4)

    ensemble = fa.networks.EnsembleMLP(3, [5, 8, 6, CLASSES], bias=False)
    states = ensemble.state_dicts()
    x, y = numbers(10, 5), torch.arange(10) % CLASSES
    together = wrapped(ensemble)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, -2), y)

    spectra = fa.conditioning(together, loss, x.expand(3, -1, -1), y.repeat(3)).layers
    for i, state in enumerate(states):
        model = fa.networks.MLP([5, 8, 6, CLASSES], bias=False)
        model.load_state_dict(state)
        alone = wrapped(model)
        for name, angle in fa.weight_alignment(alone).layers.items():
            assert float(fa.weight_alignment(together).per_network[name][i]) == pytest.approx(angle, abs=1e-12)
        for name, layer in fa.conditioning(alone, loss, x, y).layers.items():
            torch.testing.assert_close(spectra[name].spectrum.values[i], layer.spectrum.values, **CLOSE)


def largest_memory(step: Any) -> int:
    """Return how many numbers in float64 the largest single request for memory was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    return int(max(event.self_cpu_memory_usage for event in seen.events())) // 8


WORDS = 40_000


@pytest.mark.parametrize("recipe", [Sketched(4), Sketched(4, Shared())], ids=repr)
def test_a_vocabulary_takes_no_memory_beyond_that_of_the_readout(recipe: Any) -> None:
    """The hidden layer is 64 times as wide as the readout's input, so F has 64 times the entries of the readout."""
    model = nn.Sequential(nn.Linear(3, 128), nn.Tanh(), nn.Linear(128, 2), nn.Tanh(), nn.Linear(2, WORDS))
    net = fa.DFA(model, points=("1", "3"), feedback=recipe)
    x, y = torch.ones(2, 3), torch.tensor([5, 9])

    def measure() -> None:
        assert set(fa.weight_alignment(net).layers) == {"2", "4"}
        assert fa.alignability(net).layers["2"].bound == 1
        layers = fa.conditioning(net, functional.cross_entropy, x, y).layers
        assert (layers["2"].shape, layers["2"].spectrum.rank) == ((WORDS, WORDS), 2)

    measure()
    readout = 2 * WORDS
    assert largest_memory(measure) <= 2 * readout < 128 * WORDS


def test_an_alignment_matrix_of_a_vocabulary_is_refused_in_words_when_it_is_read() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, WORDS))
    net = fa.DFA(model, points=("1", "3"), feedback=Sketched(2))
    layers = fa.conditioning(net, functional.cross_entropy, torch.ones(2, 3), torch.tensor([5, 9])).layers
    assert layers["0"].matrix.shape == (WORDS, 3)
    with pytest.raises(ArgumentError, match=r"has shape \(40000, 40000\), which is 12\.8 GB, so it was not made"):
        _ = layers["2"].matrix
    assert np.isfinite(layers["2"].residual)


def test_images_whose_feedback_would_fill_any_memory_are_measured() -> None:
    """F of the two points would have 10¹¹ entries."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 50_257),
    )  # fmt: skip
    x = torch.randn(1, 1, 500, 500, generator=torch.Generator().manual_seed(0))
    net = fa.DFA(model, ("1", "3"), Channelwise(), example_input=x)
    assert sum(place.features * place.outputs for place in net.feedback.places) > 1e11
    layer = fa.alignability(net).layers["2"]
    # A kernel of 3 × 3 connects 1498 of the 500 · 500 pairs of rows, and of the pairs of columns.
    assert layer.bound == pytest.approx(1498 / 500**2, rel=1e-9)
    assert abs(layer.weight_alignment) <= layer.bound
    found = fa.conditioning(net, functional.cross_entropy, x, torch.tensor([5]))
    assert found.error.rank == 1
    assert "not one matrix" in found.undefined["6"]


def test_a_rank_that_is_too_high_for_the_memory_is_told_and_the_other_layers_are_measured() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh(), nn.Flatten(),
        nn.Linear(800, 5), nn.Tanh(), nn.Linear(5, 700),
    )  # fmt: skip
    net = fa.DFA(model, ("1", "3", "6"), feedback.Gaussian(), example_input=torch.zeros(1, 1, 10, 10))
    found = fa.alignability(net)
    assert found.layers["5"].bound == 1
    assert "feedback of rank 700 and 700" in found.undefined["2"]
    assert "give feedback of lower rank" in found.undefined["2"]
