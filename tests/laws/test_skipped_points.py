"""Points that a pass does not reach: skipped layers are allowed, replaced modules and unwrapped nets are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, FIXED_AND_LEARNED, assert_same, batch, gradients, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import PointsError


class LayerDropout(nn.Module):
    """Three residual blocks, of which a pass may leave some out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(3))
        self.readout = nn.Linear(5, 3)
        self.left_out: set[int] = set()
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            if i not in self.left_out:
                x = x + block(x)
        logits: Tensor = self.readout(x)
        return logits


POINTS = [f"blocks.{i}" for i in range(3)]
DIRECT = [fa.DFA, fa.DRTP, fa.ConditionedDFA, fa.DirectKolenPollack]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rule", DIRECT)
def test_the_block_of_a_skipped_point_gets_no_gradient_and_the_others_what_the_rule_says(
    rule: Any, recompute: bool
) -> None:
    x, y = batch()
    model = LayerDropout()
    net = rule(model, POINTS, example_input=x, recompute=recompute)
    before = {name: matrix.clone() for name, matrix in net.feedback_matrices.items()}
    model.left_out = {1}
    found = gradients(net, x, y)
    # Written down: the same network without the block.
    first, _, last = model.blocks
    h = x + first(x)
    k = h.detach() + last(h.detach())
    output = model.readout(x + first(x).detach() + last(h.detach()).detach())
    loss = functional.cross_entropy(output, y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    message = torch.where(error < 0, -1.0, 0.0).double() / len(y) if rule is fa.DRTP else error
    expected: dict[str, Tensor] = {}
    for name, block, end in (("blocks.0", first, h), ("blocks.2", last, k)):
        got = torch.autograd.grad(end, list(block.parameters()), message @ before[name].T)
        expected |= dict(zip((f"{name}.0.weight", f"{name}.0.bias"), got, strict=True))
    of_readout = torch.autograd.grad(loss, list(model.readout.parameters()))
    expected |= dict(zip(("readout.weight", "readout.bias"), of_readout, strict=True))
    assert_same(found, expected, **EXACT)
    # What a point does not see teaches its feedback nothing.
    assert torch.equal(net.feedback_matrices["blocks.1"], before["blocks.1"])
    model.left_out = set()
    assert "blocks.1.0.weight" in gradients(net, x, y)


@pytest.mark.parametrize("rule", [fa.FA, fa.KolenPollack, fa.SignSymmetry])
def test_a_skipped_layer_gets_no_gradient_under_sequential_rules(rule: Any) -> None:
    x, y = batch()
    model = LayerDropout()
    net = rule(model, example_input=x)
    model.left_out = {1}
    found = gradients(net, x, y)
    assert set(POINTS[1:2]).isdisjoint(name.rsplit(".", 2)[0] for name in found)
    assert {"blocks.0.0.weight", "blocks.2.0.weight", "readout.weight"} <= set(found)
    assert all(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rule", [*DIRECT, fa.ReadoutOnly])
def test_a_replaced_module_is_refused_by_name(rule: Any, recompute: bool) -> None:
    """It has no hook, so its block would learn by backprop, or not at all."""
    x, y = batch()
    model = LayerDropout()
    net = rule(model, POINTS, example_input=x, recompute=recompute)
    model.blocks[1] = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()
    with pytest.raises(PointsError, match=r"point 'blocks\.1' was not reached, since another module stands"):
        functional.cross_entropy(net(x), y)


@pytest.mark.parametrize("rule", [fa.FA, fa.KolenPollack, fa.SignSymmetry])
def test_a_replaced_layer_is_refused_by_name(rule: Any) -> None:
    model, (x, _) = network(), batch()
    net = rule(model)
    model[2] = nn.Linear(8, 6).double()
    with pytest.raises(PointsError, match=r"point '2' was not reached, since another module stands"):
        net(x)


@pytest.mark.parametrize("rule", [*FIXED_AND_LEARNED, fa.DRTP, fa.ReadoutOnly, fa.SignSymmetry])
def test_once_unwrapped_the_wrapped_net_refuses_to_learn(rule: Any) -> None:
    """Without its hooks it would learn by backprop and say nothing."""
    model, (x, y) = network(), batch()
    net = rule(model)
    net(x)
    assert net.unwrap() is model
    with pytest.raises(PointsError, match=r"has been unwrapped.*wrap it again"):
        net(x)
    with torch.no_grad():
        assert torch.equal(net(x), model(x))
    assert_same(gradients(model, x, y), gradients(network(), x, y))
    assert_same(gradients(rule(model), x, y), gradients(rule(network()), x, y))
