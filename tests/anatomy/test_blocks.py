"""Blocks: what a trace sees between the points, and that tracing leaves the model alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.cases.blocks import Branching
from torch import Tensor, nn

import feedalign as fa


def test_blocks_follow_the_order_of_running_not_of_registration() -> None:
    net = fa.DFA(Branching(), points=("gate",))
    net(torch.zeros(2, 4))
    hidden, readout = net.blocks
    assert (hidden.point, hidden.features, hidden.weights, hidden.preactivation) == ("gate", 6, ("lower",), "lower")
    assert (readout.point, readout.features, readout.weights) == ("", 3, ("upper",))


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


def test_tracing_leaves_modes_and_batch_statistics_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    model[1].eval()
    state = copy.deepcopy(model.state_dict())
    fa.DFA(model, example_input=torch.randn(2, 1, 4, 4))
    assert [module.training for module in model] == [True, False, True, True, True]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
