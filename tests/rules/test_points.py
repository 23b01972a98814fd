"""Feedback points: which are found, which are refused, and what a trace sees between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import feedalign as fa
from feedalign.errors import FeedbackShapeError, OutputError, PointsError


class Branching(nn.Module):
    """A model that is no Sequential; `spare` never runs, and `gate` is registered before the layer it follows."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Tanh()
        self.lower = nn.Linear(4, 6)
        self.spare = nn.Linear(4, 6)
        self.upper = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.upper(self.gate(self.lower(x)))
        return out


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


def test_blocks_follow_the_order_of_running_not_of_registration() -> None:
    net = fa.DFA(Branching(), points=("gate",))
    net(torch.zeros(2, 4))
    hidden, readout = net.blocks
    assert (hidden.point, hidden.features, hidden.weights, hidden.preactivation) == ("gate", 6, ("lower",), "lower")
    assert (readout.point, readout.features, readout.weights) == ("", 3, ("upper",))


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


class Embedded(nn.Module):
    """A small encoder whose first token and positions are parameters of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(4, 8))
        self.embed, self.attention = nn.Linear(5, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.act, self.readout = nn.Tanh(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.token.expand(len(x), 1, 8), self.embed(x)], 1) + self.positions
        out: Tensor = self.readout(self.act(self.attention(h, h, h)[0])[:, 0])
        return out


@pytest.mark.parametrize("rule", [fa.DFA, fa.ReadoutOnly, fa.Backprop, fa.DirectKolenPollack])
def test_the_model_itself_may_hold_parameters(rule: Any) -> None:
    x, y = torch.randn(6, 3, 5), torch.arange(6) % 3
    net = rule(Embedded(), points=("act",), batch_dims=1, example_input=x)
    assert fa.check_rule(net, nn.functional.cross_entropy, x, y).worst < 1e-12
    assert fa.validate(net.unwrap(), ("act",), x, batch_dims=1).problems == ()
    hidden, readout = net.blocks
    # What is never called itself goes with the module around it, and what the model holds with the readout.
    assert hidden.modules == ("embed", "attention", "attention.out_proj")
    assert (readout.weights, readout.modules) == (("readout",), ("readout", ""))


def test_a_frozen_block_is_so_with_what_is_never_called_in_it() -> None:
    x, y = torch.randn(6, 3, 5), torch.arange(6) % 3
    net = fa.Frozen(Embedded(), points=("embed", "act"), batch_dims=1, example_input=x, blocks=("act",))
    nn.functional.cross_entropy(net(x), y).backward()
    learn = {name for name, parameter in net.model.named_parameters() if parameter.grad is not None}
    assert learn == {"token", "positions", "embed.weight", "embed.bias", "readout.weight", "readout.bias"}


class Functional(nn.Module):
    """Holds nothing itself, and uses its part without a call."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(8, 8)

    def forward(self, h: Tensor) -> Tensor:
        return nn.functional.linear(h, self.part.weight, self.part.bias)


def test_what_is_never_called_goes_with_a_module_that_holds_nothing_itself() -> None:
    net = fa.Frozen(nn.Sequential(nn.Linear(5, 8), Functional(), nn.Tanh(), nn.Linear(8, 3)), points=("0", "2"))
    assert (net.blocks[1].modules, net.blocks[1].preactivation) == (("1.part",), "1")
    x, y = torch.randn(6, 5), torch.arange(6) % 3
    nn.functional.cross_entropy(net(x), y).backward()
    assert [name for name, p in net.model.named_parameters() if p.grad is None] == ["1.part.weight", "1.part.bias"]


def test_the_layers_of_an_encoder_are_seen_one_by_one() -> None:
    """In evaluation mode torch would take a way around them."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 3))
    net = fa.DFA(model, points=("0", "1"), batch_dims=2, example_input=torch.randn(4, 6, 5))
    names = ("self_attn", "self_attn.out_proj", "norm1", "linear1", "linear2", "norm2")
    assert set(net.blocks[1].modules) == {f"1.layers.{i}.{name}" for i in (0, 1) for name in names}
    assert net.blocks[1].preactivation == "1.layers.1.norm2"


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


@pytest.mark.parametrize(
    "change", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal, lambda layer: layer]
)
def test_a_parametrized_layer_is_a_layer(change: Any) -> None:
    layer = change(nn.Linear(6, 6, bias=False))
    net = fa.DFA(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), layer, nn.Tanh(), nn.Linear(6, 3)))
    assert (net.blocks[1].preactivation, net.blocks[1].weights) == ("2", ("2",))
    plain = nn.Linear(6, 6, bias=False)
    plain.load_state_dict({"weight": layer.weight.detach()})
    model: Any = net.unwrap()
    twin = fa.DFA(nn.Sequential(model[0], nn.Tanh(), plain, nn.Tanh(), model[4]))
    net = fa.DFA(model)
    x, y = torch.randn(6, 4), torch.arange(6) % 3
    found, expected = (fa.gradient_alignment(one, nn.functional.cross_entropy, x, y) for one in (net, twin))
    assert found.layers == pytest.approx(expected.layers)
    assert fa.weight_alignment(net).layers == pytest.approx(fa.weight_alignment(twin).layers)


def test_embedded_positions_are_no_preactivation() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(7, 8), nn.Embedding(4, 8)
            self.norm, self.readout = nn.Identity(), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.readout(self.norm(self.tokens(x) + self.positions(torch.arange(x.shape[1]))))
            return out

    x, y = torch.randint(7, (5, 4)), torch.randint(3, (5, 4))
    net = fa.DFA(Positions(), points=("norm",), batch_dims=2, example_input=x)
    assert net.blocks[0].preactivation == "norm"
    loss = lambda output, y: nn.functional.cross_entropy(output.mT, y)  # noqa: E731
    assert fa.gradient_alignment(net, loss, x, y).per_sample["norm"].shape == (5, 4)
