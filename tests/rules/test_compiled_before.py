"""Models that were compiled before they were wrapped: the rule is the rule, or an error names the point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, batch, gradients, network
from torch import Tensor, nn

import feedalign as fa
from feedalign.errors import PointsError

RULES: list[Any] = [fa.DFA, fa.FA, fa.SignSymmetry, fa.KolenPollack]
# Torch's own tracing, of an autograd function and of what follows it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


class Inside(nn.Module):
    """A model with its body in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.readout = nn.Sequential(*list(network())[:4]), network()[4]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.body(x))
        return out


def whole(model: Any) -> None:
    model.compile(backend="eager")


def part(model: Any) -> None:
    model.body.compile(backend="eager")


@pytest.mark.parametrize("compiled", [whole, part])
@pytest.mark.parametrize("rule", RULES)
def test_compiled_and_run_before_it_was_wrapped(rule: Any, compiled: Callable[[Any], None]) -> None:
    torch.compiler.reset()
    points = ("body.1", "body.3") if rule is fa.DFA else "auto"
    model = Inside()
    compiled(model)
    true = gradients(model, *batch())
    expected = gradients(rule(Inside(), points), *batch())
    net = rule(model, points)
    assert_same(gradients(net, *batch()), expected, **EXACT)
    assert_same(gradients(net.unwrap(), *batch()), true, **EXACT)


class Hidden(nn.Module):
    """A model that runs a compiled function of its own, which no module tells."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = network()[0], network()[2], network()[4]
        self.fast = torch.compile(self.inner, backend="eager")

    def inner(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))
        return out

    def forward(self, x: Tensor) -> Any:
        return self.fast(x)


@pytest.mark.parametrize("rule", RULES)
def test_compiled_code_that_cannot_be_seen_is_refused_when_it_runs(rule: Any) -> None:
    torch.compiler.reset()
    points = ("a", "b") if rule is fa.DFA else "auto"
    expected = gradients(rule(Hidden(), points), *batch())
    torch.compiler.reset()
    model = Hidden()
    gradients(model, *batch())
    net = rule(model, points)
    with pytest.raises(PointsError, match=r"was not reached, although the output is computed from its parameters"):
        net(batch()[0])
    torch.compiler.reset()  # as the message says
    assert_same(gradients(net, *batch()), expected, **EXACT)


@pytest.mark.parametrize("rule", RULES)
def test_a_layer_whose_weight_is_used_without_calling_the_layer_is_refused(rule: Any) -> None:
    class Functional(Inside):
        around = False

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.body[0](x))
            layer: Any = self.body[2]
            h = nn.functional.linear(h, layer.weight, layer.bias) if self.around else layer(h)
            out: Tensor = self.readout(torch.tanh(h))
            return out

    model = Functional()
    net = rule(model, ("body.2",), example_input=batch()[0])
    model.around = True
    with pytest.raises(PointsError, match=r"point 'body\.2' was not reached, although the output is computed"):
        net(batch()[0])
