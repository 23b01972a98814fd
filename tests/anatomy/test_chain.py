"""Chains are known, and what is measured in a chain is what is measured in the same modules of another model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import batch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.anatomy import is_chain


class InTurn(nn.Sequential):
    """The same modules in the same order, by a forward pass of the model's own."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


def dense() -> list[nn.Module]:
    return [nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)]


def within() -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 6), nn.ELU()), nn.Linear(6, 3)]


CHAINS: list[Any] = [(dense, ("2", "4")), (within, ("0.1", "1.1")), (within, ("0", "1"))]


@pytest.mark.parametrize(
    ("model", "chain"),
    [
        (nn.Sequential(*dense()), True),
        (nn.Sequential(*within()), True),
        (fa.networks.MLP([3, 4, 2]), True),
        (fa.networks.ConvNet((1, 8, 8), (2, 3), 2), True),
        (nn.LSTM(3, 4), True),
        (InTurn(*dense()), False),
        (nn.Sequential(InTurn(*dense())), False),
        (nn.Sequential(nn.TransformerEncoderLayer(4, 2)), False),
        (nn.ModuleList(dense()), False),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_chain_is_known(model: nn.Module, chain: bool) -> None:
    assert is_chain(model) == chain


@pytest.mark.parametrize("at", ["preactivation", "point"])
@pytest.mark.parametrize(("layers", "points"), CHAINS)
def test_a_chain_is_measured_as_any_other_model(layers: Any, points: Any, at: Any) -> None:
    x, y = batch()
    found = []
    for kind in (nn.Sequential, InTurn):
        torch.manual_seed(0)
        net = fa.DFA(kind(*layers()).double(), points, seed=1)
        found.append(fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at))
    assert is_chain(net.model) is False
    for name in net.points:
        torch.testing.assert_close(found[0].per_sample[name], found[1].per_sample[name], rtol=1e-9, atol=1e-11)
    assert found[0].norm_ratios == pytest.approx(found[1].norm_ratios, rel=1e-9)
