"""Alignability of a model's layers: the theory's numbers, a bound that training respects, and what cannot be told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, PointsError
from feedalign.feedback import Channelwise, Feedback, Gaussian, Smooth
from feedalign.networks import ConvNet, dense, locally_connected
from feedalign.theory import convolution

SHAPE = (3, 16, 16)


def wrapped(model: nn.Module, feedback: Feedback, rule: Any = fa.DFA) -> Any:
    return rule(model, points=("0", "1", "2"), feedback=feedback, example_input=torch.zeros(1, *SHAPE))


def test_it_is_what_theory_says_of_shapes_and_feedback() -> None:
    net = wrapped(ConvNet(SHAPE, (4, 6, 8)), Gaussian())
    found = fa.alignability(net).layers
    F = [matrix.double().numpy() for matrix in net.feedback_matrices.values()]
    for name, above, below, shape, channels in (("1.0", F[1], F[0], (4, 8, 8), 6), ("2.0", F[2], F[1], (6, 4, 4), 8)):
        expected = convolution.alignability(above, below, in_shape=shape, out_channels=channels, stride=2, padding=1)
        assert found[name].bound == expected
        geometry = convolution.Geometry(shape, channels, stride=(2, 2), padding=(1, 1))
        assert found[name].random == convolution.random_estimate(geometry, 10)
        assert found[name].channelwise == convolution.channelwise_estimate(geometry)
    assert found["3.1"].bound == 1


def test_sparse_connections_cost_alignment_and_sharing_costs_more() -> None:
    net = ConvNet(SHAPE, (4, 6, 8))
    bounds = [
        fa.alignability(wrapped(model, Gaussian())).layers
        for model in (dense(net, SHAPE), locally_connected(net, SHAPE), locally_connected(net, SHAPE, 2), net)
    ]
    layers = [[bound[name].bound for name in bound if name != "3.1"] for bound in bounds]
    assert layers[0] == [1, 1]
    assert layers[1][0] > layers[2][0] > layers[3][0]
    assert layers[1][1] == layers[2][1] > layers[3][1]  # 2 × 2 positions, so two regions along an axis share nothing


@pytest.mark.parametrize("feedback", [Gaussian(), Channelwise(), Smooth(2)], ids=repr)
@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("sharing", ["none", "all"])
def test_training_never_exceeds_the_bound(feedback: Feedback, rule: Any, sharing: str) -> None:
    net = ConvNet(SHAPE, (4, 6, 8))
    net = net if sharing == "all" else locally_connected(net, SHAPE)  # type: ignore[assignment]
    trained = wrapped(net, feedback, rule)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, *SHAPE, generator=generator), torch.arange(64) % 10
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
    begin = fa.weight_alignment(trained).layers
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(trained(x), y).backward()
        optimizer.step()
    for name, layer in fa.alignability(trained).layers.items():
        assert abs(layer.weight_alignment) <= layer.bound + 1e-9
        assert layer.weight_alignment != begin[name]


def test_what_stands_between_pools_is_undefined_and_says_so() -> None:
    found = fa.alignability(wrapped(ConvNet((3, 16, 16), (4, 6, 8), stride=1, pool="max"), Gaussian()))
    assert set(found.layers) == {"3.1"}
    assert "without pooling in between" in found.undefined["1.0"]


def test_a_layer_of_ones_own_is_known_by_its_geometry() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 4, 1, 1))
            self.geometry = convolution.Geometry((4, 6, 6), 5, kernel_size=(1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.conv2d(x, self.weight)

    theirs = nn.Conv2d(4, 5, 1, bias=False)
    mine = Mine()
    mine.load_state_dict(theirs.state_dict())
    nets = [nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.Flatten(), nn.Linear(180, 10)) for layer in (mine, theirs)]
    found = [fa.alignability(fa.DFA(net, example_input=torch.zeros(1, 3, 6, 6))).layers for net in nets]
    assert found[0]["1"] == found[1]["1"]
    assert set(found[0]) == {"1", "3"}


def test_undrawn_feedback_and_rules_without_it_are_refused() -> None:
    with pytest.raises(PointsError, match="the feedback is not drawn yet"):
        fa.alignability(fa.DFA(ConvNet(SHAPE)))
    with pytest.raises(
        ArgumentError,
        match=r"FA sends no error straight.*no layer has feedback to align with",
    ):
        fa.alignability(fa.FA(fa.networks.MLP([4, 5, 3])))  # type: ignore[arg-type]
    bare: Any = ConvNet(SHAPE)
    with pytest.raises(ArgumentError, match="got a ConvNet, expected a model wrapped in a rule"):
        fa.alignability(bare)
