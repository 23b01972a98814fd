"""Feedback as a part of the model's state: drawn, seeded, saved, loaded, cast and moved, and no parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError, PointsError


def make(seed: int = 0) -> fa.DFA:
    return fa.DFA(fa.networks.MLP([4, 6, 5, 3], seed=7), seed=seed)


def convnet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


def test_feedback_is_drawn_at_once_where_the_model_begins_with_a_linear_layer() -> None:
    assert {name: tuple(F.shape) for name, F in make().feedback_matrices.items()} == {"1": (6, 3), "3": (5, 3)}


def test_elsewhere_it_is_drawn_from_an_example_or_at_the_first_pass_with_the_same_result() -> None:
    x = torch.zeros(2, 1, 4, 4)
    early, late = fa.DFA(convnet(), example_input=x), fa.DFA(convnet())
    with pytest.raises(PointsError, match="give example_input=, or run one forward pass"):
        _ = late.feedback_matrices
    late(x)
    assert torch.equal(early.feedback_matrices["2"], late.feedback_matrices["2"])


def test_feedback_is_in_the_state_never_among_the_parameters() -> None:
    net = make()
    assert {key for key in net.state_dict() if key.startswith("feedback.")} == {"feedback.1", "feedback.3"}
    assert {name for name, _ in net.named_parameters()} == {
        f"model.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")
    }
    before = net.feedback_matrices["1"].clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.5)
    functional.cross_entropy(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert torch.equal(net.feedback_matrices["1"], before)


@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_the_state_restores_the_feedback_of_another_seed_drawn_or_not(model: str) -> None:
    """A convnet has not drawn its feedback when the state is loaded; it takes the saved one, and keeps it."""
    x = torch.randn(2, 4) if model == "mlp" else torch.randn(2, 1, 4, 4)
    one, other = (
        (make(0), make(1))
        if model == "mlp"
        else (fa.DFA(convnet(), seed=0, example_input=x), fa.DFA(convnet(), seed=1))
    )
    other.load_state_dict(one.state_dict())
    y = torch.tensor([0, 1])
    for net in (one, other):
        functional.cross_entropy(net(x), y).backward()
    for name, matrix in one.feedback_matrices.items():
        assert torch.equal(other.feedback_matrices[name], matrix)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_a_loaded_matrix_of_another_shape_is_refused_at_the_first_pass() -> None:
    net = fa.DFA(convnet())
    net.load_state_dict(
        {**fa.DFA(convnet(), example_input=torch.zeros(1, 1, 4, 4)).state_dict(), "feedback.2": torch.zeros(9, 3)}
    )
    with pytest.raises(FeedbackShapeError, match=r"of .2. has shape \(9, 3\), expected \(8, 3\), features by outputs"):
        net(torch.zeros(2, 1, 4, 4))


def test_nested_names_survive_in_the_state() -> None:
    model = nn.ModuleDict({"a/b": nn.Sequential(nn.Linear(4, 6), nn.Tanh()), "c": nn.Linear(6, 3)})
    net = fa.DFA(Chain(model), points=("layers.a/b.1",))
    assert list(net.feedback_matrices) == ["layers.a/b.1"]
    assert r"feedback.layers/a\b/1" in net.state_dict()
    net(torch.randn(2, 4)).sum().backward()


def test_a_state_with_other_points_is_refused() -> None:
    state = fa.DFA(fa.networks.MLP([4, 6, 5, 3]), points=("1", "3")).state_dict()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fa.DFA(fa.networks.MLP([4, 6, 5, 3]), points=("1",)).load_state_dict(state)


class Chain(nn.Module):
    def __init__(self, layers: nn.ModuleDict) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x


def test_feedback_is_cast_and_moved_with_the_model() -> None:
    net = make().double()
    assert net.feedback_matrices["1"].dtype == torch.float64
    assert make().to("meta").feedback_matrices["1"].device.type == "meta"
    assert fa.DFA(fa.networks.MLP([4, 6, 3]).double()).feedback_matrices["1"].dtype == torch.float64


def test_same_seed_same_feedback_other_seed_other_and_zero_is_a_seed() -> None:
    assert torch.equal(make(0).feedback_matrices["1"], make(0).feedback_matrices["1"])
    assert not torch.equal(make(0).feedback_matrices["1"], make(1).feedback_matrices["1"])


def test_the_matrix_of_a_point_depends_on_no_other_point() -> None:
    model = fa.networks.MLP([4, 6, 6, 3])
    alone = fa.DFA(model, points=("3",)).feedback_matrices
    assert torch.equal(alone["3"], fa.DFA(model, points=("1", "3")).feedback_matrices["3"])


def test_a_matrix_drawn_after_others_were_loaded_has_numbers_of_its_own() -> None:
    def net() -> fa.DFA:
        return fa.DFA(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(8, 3)), ("0", "1"))

    x = torch.zeros(2, 1, 4, 4)
    whole, later = net(), net()
    whole(x)
    later.load_state_dict({"feedback.0": whole.feedback_matrices["0"]}, strict=False)
    later(x)
    assert not torch.equal(later.feedback_matrices["0"], later.feedback_matrices["1"])
    assert torch.equal(later.feedback_matrices["1"], whole.feedback_matrices["1"])


def test_nothing_touches_the_global_generator() -> None:
    state = torch.get_rng_state()
    net = make()
    functional.cross_entropy(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    fa.gradient_alignment(net, functional.cross_entropy, torch.ones(2, 4), torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rule", [fa.DFA, fa.ConditionedDFA, fa.KolenPollack, fa.DirectKolenPollack])
def test_the_first_pass_may_be_in_inference_mode(rule: Any) -> None:
    net = rule(convnet(), feedback=fa.feedback.Gaussian() if rule is fa.KolenPollack else fa.feedback.Aligned())
    x, y = torch.randn(2, 1, 4, 4), torch.tensor([0, 1])
    with torch.inference_mode():
        net(torch.randn(2, 1, 4, 4))
    functional.cross_entropy(net(x), y).backward()
    assert not any(matrix.is_inference() for matrix in net.feedback_matrices.values())
    net.load_state_dict(net.state_dict())


def test_a_change_of_width_says_to_wrap_again() -> None:
    model: Any = fa.networks.MLP([4, 6, 3])
    net = fa.DFA(model)
    model[0], model[2] = nn.Linear(4, 8), nn.Linear(8, 3)
    with pytest.raises(FeedbackShapeError, match=r"'1' has shape \(6, 3\), which does not fit the activation \(2, 8\)"):
        net(torch.ones(2, 4))


@pytest.mark.parametrize("recipe", ["gaussian", fa.feedback.Gaussian, torch.zeros(6, 3)])
def test_feedback_that_is_no_recipe_is_refused_at_once(recipe: Any) -> None:
    with pytest.raises(ArgumentError, match="is no recipe; give an instance such as feedalign"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=recipe)


def test_a_fault_in_a_recipe_is_not_hidden() -> None:
    class Faulty:
        def draw(self, features: int, outputs: int, generator: torch.Generator) -> torch.Tensor:
            raise ZeroDivisionError("the recipe's own")

    with pytest.raises(ZeroDivisionError, match="the recipe's own"):
        fa.DFA(fa.networks.MLP([4, 6, 3]), feedback=Faulty())
