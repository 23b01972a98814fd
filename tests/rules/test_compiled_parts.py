"""Parts of a model that were compiled one by one, before or after the model was wrapped: the rule still runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, batch, gradients
from torch import Tensor, nn

import feedalign as fa


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.readout = nn.Linear(5, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2))
        self.double()

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.first(x))
        for block in self.blocks:
            h = block(h)
        return self.readout(h)


def wrapped(rule: Any, model: nn.Module) -> Any:
    points = "auto" if issubclass(rule, fa.rules.SequentialRule) else ("blocks.0", "blocks.1")
    return rule(model, points, seed=3)


# Torch's own tracing of an autograd function, and its own look at the gradients of what a compiled part takes.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("first", ["compiled", "wrapped"])
@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.FA, fa.KolenPollack])
def test_every_step_is_that_of_the_uncompiled_model(rule: Any, first: str) -> None:
    model, plain = Blocks(), wrapped(rule, Blocks())
    net = wrapped(rule, model) if first == "wrapped" else None
    for block in model.blocks:
        block.compile(backend="aot_eager")
    net = wrapped(rule, model) if net is None else net
    for step in range(2):
        x, y = batch(seed=step)
        assert_same(gradients(net, x, y), gradients(plain, x, y), **EXACT)
    assert_same(net.feedback_matrices, plain.feedback_matrices, **EXACT)
