"""What a test holds of a net in any situation: its gradients are right, or its measures are cosines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from tests.cases.small import EXACT, ROUNDING, assert_same, batch, gradients, left_by_backward, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa

Rule = Any
cross_entropy = functional.cross_entropy


def sequential(rule: Rule) -> bool:
    return issubclass(rule, fa.rules.SequentialRule)


def wrapped(rule: Rule, model: nn.Module, points: tuple[str, ...] | str, example: Any = None, **options: Any) -> Any:
    """Return a model in a rule; a sequential rule finds its layers itself."""
    return rule(model, "auto" if sequential(rule) else points, example_input=example, **options)


def right(net: Any, x: Any, y: Any, loss: Callable[[Any, Any], Tensor] = cross_entropy) -> None:
    """Hold that every gradient is that of the slow reference."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        report = fa.check_rule(net, loss, x, y)
    # Where a layer runs twice, two updates of one B follow one another, which the reference does in one step.
    errors = {name: error for name, error in report.errors.items() if not name.startswith("feedback")}
    assert max(errors.values()) < ROUNDING, report


def measured(net: Any, x: Any, y: Any, loss: Callable[[Any, Any], Tensor] = cross_entropy) -> None:
    """Hold that the measures give cosines, and leave the net as it is."""
    net = net.double()
    x = tuple(map(doubled, x)) if isinstance(x, tuple) else x if isinstance(x, dict) else doubled(x)
    before = copy.deepcopy(net.state_dict())
    for at in ("preactivation", "parameters"):
        found = fa.gradient_alignment(net, loss, x, y, at=at)
        assert found.layers
        assert not any(abs(cosine) > 1.0001 for cosine in found.layers.values())
    weights = fa.weight_alignment(net)
    assert not any(abs(cosine) > 1.0001 for cosine in weights.layers.values())
    assert_same(net.state_dict(), before)
    assert all(p.grad is None for p in net.parameters())


def doubled(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


Hold = Callable[..., None]


def as_usual(rule: Rule, train: Callable[[Any, Tensor, Tensor], Any], **tolerance: Any) -> None:
    """Hold that a way to train a small net leaves the gradients that the usual loop leaves."""
    x, y = batch()
    expected = gradients(rule(network(), seed=1), x, y)
    right(rule(network(), seed=1), x, y)
    net = rule(network(), seed=1)
    found = train(net, x, y)
    assert_same(found if isinstance(found, dict) else left_by_backward(net), expected, **(tolerance or EXACT))
