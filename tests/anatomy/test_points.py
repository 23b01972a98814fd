"""Feedback points: which are found, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.blocks import Branching
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import FeedbackShapeError, OutputError, PointsError


@pytest.mark.parametrize(
    ("layers", "points"),
    [
        ([nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2)], ("1", "3")),
        ([nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)], ("0", "1")),
        ([nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(), nn.Linear(5, 2)], ("4",)),
        ([nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Sequential(nn.Linear(5, 5)), nn.Linear(5, 2)], ("0", "1")),
    ],
)
def test_auto_takes_the_last_module_before_each_layer_with_weights(layers: list[nn.Module], points: Any) -> None:
    assert fa.DFA(nn.Sequential(*layers)).points == points


@pytest.mark.parametrize(
    ("model", "points", "message"),
    [
        (Branching(), "auto", "can read nn.Sequential.*not Branching.*from: gate, lower, spare, upper"),
        (Branching(), ("gates",), "point 'gates' is no module of the model; did you mean 'gate'"),
        (Branching(), ("gate", "gate"), "point 'gate' is given twice"),
        (nn.Sequential(*2 * [nn.Tanh()]), ("1",), "point '1' is another name of the module '0'; take '0'"),
        (Branching(), (), "points is empty"),
        (Branching(), ("",), "point '' is no module of the model; choose from: gate, lower, spare, upper"),
        (nn.Sequential(nn.Linear(4, 3)), "auto", "no hidden layer: 1 of the 1 modules"),
        (nn.Sequential(nn.ReLU()), "auto", "no hidden layer: 0 of the 1 modules"),
    ],
)
def test_points_that_do_not_fit_are_refused(model: nn.Module, points: Any, message: str) -> None:
    with pytest.raises(PointsError, match=message):
        fa.DFA(model, points=points)


def test_a_point_that_never_runs_is_named() -> None:
    with pytest.raises(PointsError, match="point 'spare' never ran in a forward pass"):
        fa.DFA(Branching(), points=("gate", "spare"))(torch.zeros(2, 4))


def test_wrapping_a_wrapped_model_is_refused() -> None:
    net = fa.DFA(fa.networks.MLP([4, 5, 2]))
    with pytest.raises(PointsError, match=r"already wrapped in DFA; wrap model\.unwrap"):
        fa.Backprop(net)


class Returns(nn.Module):
    """A model with one hidden layer that returns what it is told to make of its output."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 6)
        self.readout = nn.Linear(6, 3)
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.readout(self.hidden(x).relu()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda out: out.argmax(-1),
            r"must be a floating-point Tensor \[\*batch, outputs\], got shape \(2,\) of torch.int64",
        ),
        (lambda out: (out, out), "got tuple"),
        (lambda out: out.sum(), r"got shape \(\) of torch.float32"),
        (lambda out: out.detach(), "the model's output carries no gradient"),
    ],
)
def test_an_output_that_can_carry_no_error_is_refused(make: Any, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        fa.DFA(Returns(make), points=("hidden",))(torch.zeros(2, 4))


def test_a_readout_below_the_last_point_is_refused() -> None:
    with pytest.raises(OutputError, match="no trainable parameter lies after the last feedback point"):
        fa.DFA(Returns(lambda out: out), points=("hidden", "readout"))(torch.zeros(2, 4))


def test_a_frozen_readout_is_allowed() -> None:
    model = Returns(lambda out: out)
    model.readout.requires_grad_(False)
    net = fa.DFA(model, points=("hidden",))
    net(torch.ones(2, 4)).sum().backward()
    assert model.hidden.weight.grad is not None


def test_a_point_without_the_batch_axes_of_the_output_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Flatten(0), nn.Unflatten(0, (2, 6)), nn.Linear(6, 3))
    with pytest.raises(
        FeedbackShapeError, match=r"point '1' has shape \(12,\), but the output has the batch axes \(2,\)"
    ):
        fa.DFA(model, points=("1",))(torch.zeros(2, 4))


def test_a_module_of_two_widths_cannot_be_one_point() -> None:
    shared = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 6), shared, nn.Linear(6, 5), shared, nn.Linear(5, 3))
    with pytest.raises(FeedbackShapeError, match="runs at several widths cannot be one point"):
        fa.DFA(model, points=("1",))(torch.zeros(2, 4))


def test_a_point_that_gives_no_tensor_is_refused() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"h": x}

    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower, self.named, self.upper = nn.Linear(4, 6), Named(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            return self.upper(self.named(self.lower(x))["h"])

    with pytest.raises(PointsError, match=r"point 'named' gives a dict, expected one floating-point.*an nn\.Identity"):
        fa.DFA(Picks(), points=("named",))(torch.zeros(2, 4))


class Odd(nn.Module):
    """Its forward is no plain function; the innerun of it is no run of the point."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, h: Tensor, inside: bool = False) -> Tensor:
        layer, below = (self.inner, h) if inside else (self.outer, self.forward(h, inside=True))
        return torch.tanh(layer(below))


@pytest.mark.parametrize("module", [Odd, Nested])
def test_a_point_may_be_any_module(module: Any) -> None:
    net = fa.DFA(nn.Sequential(nn.Linear(4, 6), module(), nn.Linear(6, 3)), points=("1",))
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12


def test_an_activation_that_stands_in_two_places_is_a_point_in_both() -> None:
    act = nn.Tanh()
    net = fa.DFA(nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 3)))
    assert net.points == ("1",)
    assert [block.weights for block in net.blocks] == [("0",), ("2",), ("4",)]
    x, error = torch.randn(5, 4), torch.randn(5, 3)
    net(x).backward(error)
    h = net.get_submodule("model.0")(x).tanh()
    above = net.get_submodule("model.2")(h).tanh()
    layer: Any = net.get_submodule("model.2")
    expected = ((error @ net.feedback_matrices["1"].T) * (1 - above**2)).T @ h
    torch.testing.assert_close(layer.weight.grad, expected)
