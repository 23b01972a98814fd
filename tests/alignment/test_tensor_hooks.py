"""`Tensor.register_hook` between pre-activation and point changes the derivative, and `gradient_alignment` sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.cases.small import batch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa

SLOPES = torch.linspace(-1, 3, 8, dtype=torch.float64)


class Hooked(nn.Module):
    """An activation; a hook on what it is made of scales the derivative on its way down."""

    def __init__(self, hook: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.hook = hook

    def forward(self, a: Tensor) -> Tensor:
        h = torch.tanh(a * 1.0)
        scaled = h * 1.0
        if self.hook is not None and h.requires_grad:
            h.register_hook(self.hook)
        return scaled


def measured(hook: Callable[[Tensor], Tensor] | None) -> tuple[fa.alignment.GradientAlignment, fa.DFA, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), Hooked(hook), nn.Linear(8, 3)).double()
    net = fa.DFA(model, points=("1",), seed=1)
    x, y = batch()
    return fa.gradient_alignment(net, functional.cross_entropy, x, y), net, x, y


def test_a_hook_scales_both_derivatives() -> None:
    """δ = s ⊙ g'(a) ⊙ what comes from above, for the true derivative and for what the rule sends."""
    found, net, x, y = measured(lambda gradient: gradient * SLOPES)
    first, _, readout = net.model.children()
    with torch.no_grad():
        h = torch.tanh(first(x))
        error = readout(h).softmax(-1) - functional.one_hot(y, 3)
        slope = SLOPES * (1 - h**2)
        true = error @ net.get_parameter("model.2.weight") * slope
        sent = error @ net.feedback_matrices["1"].T * slope
    torch.testing.assert_close(
        found.per_sample["1"], functional.cosine_similarity(true, sent, dim=-1), rtol=1e-10, atol=1e-12
    )
    assert found.norm_ratios["1"] == pytest.approx(float(sent.norm() / true.norm()), rel=1e-10)
    without, *_ = measured(None)
    assert not torch.allclose(found.per_sample["1"], without.per_sample["1"], atol=0.01)


def test_training_and_the_measure_see_the_same_hook() -> None:
    """At the parameters it is the cosine of what two backward passes leave there."""
    _, net, x, y = measured(lambda gradient: gradient * SLOPES)
    found = fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters")
    gradients = []
    weights = [net.get_parameter(f"model.0.{name}") for name in ("weight", "bias")]
    for scope in (torch.enable_grad(), net.backprop()):
        with scope:
            loss = functional.cross_entropy(net(x), y)
        gradients.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, weights)]))
    assert found.layers["1"] == pytest.approx(
        float(functional.cosine_similarity(gradients[0], gradients[1], dim=0)), abs=1e-12
    )
