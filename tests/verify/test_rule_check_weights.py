"""check_rule and alignment at the parameters, where weights are tied, frozen, sparse, or held from the last pass."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cases.models import floats, labels
from tests.cases.small import ROUNDING
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

import feedalign as fa


class Tied(nn.Module):
    """A readout with the weight of the hidden layer."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.a, self.t, self.b = nn.Linear(4, 4, bias=False), activation, nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.t(self.a(x)))
        return out


@pytest.mark.parametrize("rule", [fa.DFA, fa.FA, fa.KolenPollack, fa.SignSymmetry])
def test_tied_weights(rule: Any) -> None:
    net = rule(Tied(nn.Tanh()), points=("t",) if rule is fa.DFA else "auto")
    assert fa.check_rule(net, functional.mse_loss, floats(5, 4), floats(5, 4, seed=1)).worst < ROUNDING


def test_at_the_parameters_a_tied_readout_counts_on_both_sides() -> None:
    """Linear, with the transposed readout as feedback, DFA is backprop."""
    x, y = floats(5, 4), floats(5, 4, seed=1)
    net = fa.DFA(Tied(nn.Identity()), ("t",), fa.feedback.Aligned(), example_input=x)
    assert fa.gradient_alignment(net, functional.mse_loss, x, y, at="parameters").layers["t"] == pytest.approx(1)


@pytest.mark.parametrize("rule", [fa.DFA, fa.ConditionedDFA, fa.FA])
def test_a_frozen_readout(rule: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    model[2].requires_grad_(False)
    assert fa.check_rule(rule(model), functional.cross_entropy, floats(5, 4), labels(5)).worst < ROUNDING


def test_sparse_gradients() -> None:
    layers = nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)
    net = fa.DFA(nn.Sequential(*layers), points=("1", "3"))
    x, y = labels(7, 3, classes=9), labels(7)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < ROUNDING
    assert -1 <= fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters").layers["1"] <= 1


def test_a_net_that_has_run_and_holds_a_tensor_of_its_pass_can_be_checked() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    prune.random_unstructured(model[0], "weight", amount=0.5)
    net = fa.DFA(model)
    functional.cross_entropy(net(floats(5, 4)), labels(5)).backward()
    assert fa.check_rule(net, functional.cross_entropy, floats(5, 4), labels(5)).worst < ROUNDING
