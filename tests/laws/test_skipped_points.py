"""Points that a pass does not reach: skipped layers are allowed, replaced modules and unwrapped nets are refused."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from tests.cases.small import EXACT, FIXED_AND_LEARNED, ROUNDING, assert_same, batch, gradients, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.anatomy import same_random_numbers
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


class SkippedInside(nn.Module):
    """Three residual blocks that a pass may leave out; the points, or the blocks themselves, run in every pass.

    Args:
        at: "sum" puts a point behind each sum, "block" makes each block skip itself.
    """

    def __init__(self, at: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.at = at
        self.blocks: Any = nn.ModuleList(Skipping() for _ in range(3))
        self.sums = nn.ModuleList(nn.Identity() for _ in range(3))
        self.readout = nn.Linear(5, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for block, after in zip(self.blocks, self.sums, strict=True):
            x = block(x) if self.at == "block" else after(x if block.skips else x + block.body(x))
        logits: Tensor = self.readout(x)
        return logits


class Skipping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
        self.skips = False

    def forward(self, x: Tensor) -> Tensor:
        return x if self.skips else x + self.body(x)


@pytest.mark.parametrize("skipped", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("at", ["sum", "block"])
@pytest.mark.parametrize("rule", DIRECT)
def test_a_block_that_is_skipped_before_its_point_gets_no_gradient(
    rule: Any, at: str, recompute: bool, skipped: tuple[int, ...]
) -> None:
    """The point runs, on what the point before gave, so its activation has no gradient: nothing of the block ran."""
    x, y = batch()
    model = SkippedInside(at)
    points = [f"{'sums' if at == 'sum' else 'blocks'}.{i}" for i in range(3)]
    net = rule(model, points, example_input=x, recompute=recompute)
    matrices = [matrix.clone() for matrix in net.feedback_matrices.values()]
    for i in skipped:
        model.blocks[i].skips = True
    found = gradients(net, x, y)
    ends, h = [], x
    for block in model.blocks:
        h = block(h)
        ends.append(h)
        h = h.detach()
    output = model.readout(h)
    loss = functional.cross_entropy(output, y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    message = torch.where(error < 0, -1.0, 0.0).double() / len(y) if rule is fa.DRTP else error
    of_readout = torch.autograd.grad(loss, [*model.readout.parameters()])
    expected = dict(zip(("readout.weight", "readout.bias"), of_readout, strict=True))
    for i, (end, matrix) in enumerate(zip(ends, matrices, strict=True)):
        if i not in skipped:
            got = torch.autograd.grad(end, list(model.blocks[i].parameters()), message @ matrix.T)
            expected |= {f"blocks.{i}.body.0.weight": got[0], f"blocks.{i}.body.0.bias": got[1]}
    assert_same(found, expected, **EXACT)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_block_that_has_run_and_gives_no_gradient_is_refused_by_name(recompute: bool) -> None:
    """It is no skipped block: its parameters were used, and would learn under backprop, or are meant to."""

    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = self.layer(x)
            return h.detach()

    x, y = batch()
    model = nn.Sequential(Detached(), nn.Tanh(), nn.Linear(5, 3)).double()
    for points in (("0",), ("1",)):
        net = fa.DFA(model, points, example_input=x, recompute=recompute)
        with pytest.raises(PointsError, match=rf"point '{points[0]}' gives an activation without a gradient"):
            functional.cross_entropy(net(x), y).backward()
        net.unwrap()


@pytest.mark.parametrize("rule", [*FIXED_AND_LEARNED, fa.DRTP, fa.SignSymmetry])
def test_a_skipped_point_whose_weights_another_module_uses_too_is_allowed(rule: Any) -> None:
    """The output is computed from these weights, by the other module."""
    x, y = batch()
    model: Any = LayerDropout()
    model.readout = nn.Linear(5, 5).double()
    model.readout.weight = model.blocks[1][0].weight
    net = rule(model, "auto" if issubclass(rule, fa.rules.SequentialRule) else POINTS, example_input=x)
    model.left_out = {1}
    found = gradients(net, x, y)
    assert found["blocks.1.0.weight"].any()  # the readout's share
    assert "blocks.1.0.bias" not in found


class RandomLayers(LayerDropout):
    """The same with blocks left out at random, as the libraries of others do, drawn by torch, numpy and Python."""

    def forward(self, x: Tensor) -> Tensor:
        draws = (float(torch.rand(())), float(np.random.rand()), random.random())  # noqa: NPY002
        self.left_out = {i for i, draw in enumerate(draws) if draw < 0.5} if self.training else set()
        return super().forward(x)


@pytest.mark.parametrize("rule", [*FIXED_AND_LEARNED, fa.DRTP, fa.SignSymmetry, fa.ReadoutOnly, fa.Frozen])
def test_a_random_subset_of_layers_in_every_pass_is_what_the_reference_says(rule: Any) -> None:
    x, y = batch()
    with same_random_numbers(nn.Identity()):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        net = rule(RandomLayers(), "auto" if issubclass(rule, fa.rules.SequentialRule) else POINTS, example_input=x)
        seen = set()
        for _ in range(8):
            report = fa.check_rule(net, functional.cross_entropy, x, y)
            assert report.worst < ROUNDING, report
            gradients(net, x, y)
            seen.add(frozenset(net.model.left_out))
    assert len(seen) > 3


@pytest.mark.parametrize("rule", [fa.FA, fa.KolenPollack, fa.SignSymmetry])
def test_layers_of_a_frozen_part_that_runs_without_gradients_are_passed_over(rule: Any) -> None:
    class OnBackbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = network(5, 6, 8), network(8, 7, 3)
            self.backbone.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.backbone(x)
            logits: Tensor = self.head(h)
            return logits

    x, y = batch()
    net = rule(OnBackbone(), example_input=x)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < ROUNDING
    net.model.backbone.requires_grad_(True)
    with pytest.raises(PointsError, match=r"point 'backbone\.2' ran without gradients"):
        net(x)
