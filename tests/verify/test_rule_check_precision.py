"""check_rule of models that compute parts of themselves in a precision of their own, as many of transformers do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.models import floats, labels
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError

# What is computed in float32 is rounded to float32.
SINGLE = 1e-6


class InSingle(nn.Module):
    """Logits in float32 whatever the precision of the model, as Mamba's are, and a hidden layer in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.hidden, self.act, self.readout = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.act(self.hidden(self.embed(tokens)).float())
        return functional.linear(h, self.readout.weight.float(), self.readout.bias.float())


class FixedMatrix(nn.Module):
    """A matrix in float32, which torch's bmm refuses beside float64, in words without the word dtype."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first, self.act, self.readout = first, nn.Tanh(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        out: Tensor = self.readout(torch.bmm(h.unsqueeze(1), torch.eye(6).expand(len(h), 6, 6)).squeeze(1))
        return out


@pytest.mark.parametrize("rule", [fa.DFA, fa.DRTP, fa.ConditionedDFA, fa.DirectKolenPollack])
def test_an_output_in_single_precision(rule: Any) -> None:
    tokens, y = labels(7, 5, classes=9), labels(7, 5)

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        assert output.dtype == torch.float32
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    check = fa.check_rule(rule(InSingle(), points=("act",)), loss_fn, tokens, y)
    assert check.errors["hidden.weight"] < SINGLE
    assert check.worst < SINGLE


@pytest.mark.parametrize(
    ("first", "x"),
    [(nn.Linear(4, 6), floats(5, 4)), (nn.Embedding(9, 6), labels(5, classes=9))],
    ids=["drawn at once", "drawn in the first pass"],
)
def test_a_model_that_cannot_run_in_float64_is_told(first: nn.Module, x: Tensor) -> None:
    net = fa.DFA(FixedMatrix(first), points=("act",))
    functional.cross_entropy(FixedMatrix(first)(x), labels(5)).backward()  # the model itself runs
    with pytest.raises(
        ArgumentError, match=r"a copy of the model in float64 fails: .*Double.*let the model use another"
    ):
        fa.check_rule(net, functional.cross_entropy, x, labels(5))
