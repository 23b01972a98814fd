"""Backward hooks that users set on a point's module: they see what the rule sends there, and may change it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.models import floats
from tests.cases.small import EXACT, FIXED_AND_LEARNED, assert_same, batch, gradients, network
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_full_backward_hook

import feedalign as fa
from feedalign.errors import PointsError

# Torch's own word on hooks of modules whose inputs need no gradient, such as the first one.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")


def expected(model: Any, F: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return what is sent to the upper of two points, and the gradient of its module's input."""
    x, y = batch()
    a = model[2](torch.tanh(model[0](x)))
    output = model[4](torch.tanh(a))
    (error,) = torch.autograd.grad(functional.cross_entropy(output, y), output)
    sent = error @ F["3"].T
    return sent, sent * (1 - torch.tanh(a) ** 2)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("early", [True, False])
def test_a_hook_is_called_once_with_what_the_rule_sends(early: bool, recompute: bool) -> None:
    """Whether it is set before the model is wrapped or after."""
    model, seen = network(), []

    def set_hook() -> None:
        model[3].register_full_backward_hook(lambda _module, below, sent: seen.append((*below, *sent)))

    if early:
        set_hook()
    net = fa.DFA(model, recompute=recompute)
    if not early:
        set_hook()
    found = gradients(net, *batch())
    sent, below = expected(model, net.feedback_matrices)
    ((seen_below, seen_sent),) = seen
    torch.testing.assert_close(seen_sent, sent, **EXACT)
    torch.testing.assert_close(seen_below, below, **EXACT)
    assert_same(found, gradients(fa.DFA(network()), *batch()), **EXACT)


@pytest.mark.parametrize("rule", [one for one in FIXED_AND_LEARNED if issubclass(one, fa.rules.DirectRule)])
def test_hooks_may_change_what_comes_in_and_what_goes_on(rule: Any) -> None:
    """A pre-hook that doubles and a hook that halves leave the block below the point's module as it was."""
    model = network()
    net = rule(model)
    before = gradients(net, *batch())
    net = rule(network())
    net.model[3].register_full_backward_pre_hook(lambda _module, sent: (2 * sent[0],))
    doubled = gradients(net, *batch())
    torch.testing.assert_close(doubled["2.weight"], 2 * before["2.weight"], **EXACT)
    torch.testing.assert_close(doubled["0.weight"], before["0.weight"], **EXACT)
    net = rule(network())
    net.model[3].register_full_backward_pre_hook(lambda _module, sent: (2 * sent[0],))
    net.model[3].register_full_backward_hook(lambda _module, below, _sent: (below[0] / 2,))
    assert_same(gradients(net, *batch()), before, **EXACT)


def test_under_the_true_gradient_torch_calls_the_hook_itself() -> None:
    model, seen = network(), []
    model[3].register_full_backward_hook(lambda _module, _below, above: seen.append(above[0]))
    net = fa.DFA(model)
    with net.backprop():
        gradients(net, *batch())
    gradients(fa.Backprop(net.unwrap()), *batch())
    assert len(seen) == 2
    assert torch.equal(*seen)


def test_a_hook_for_every_module_is_called_at_points_too() -> None:
    seen: list[nn.Module] = []
    model = network()
    net = fa.DFA(model)
    handle = register_module_full_backward_hook(lambda module, _below, _sent: seen.append(module))
    try:
        gradients(net, *batch())
    finally:
        handle.remove()
    assert {model[i] for i in range(5)} <= set(seen)
    assert len(seen) == len(set(seen))


def test_the_other_outputs_of_a_point_have_no_gradient() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.readout = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.readout(self.cell(x)[0][:, -1])
            return out

    model: Any = Memory()
    seen: list[Any] = []
    model.cell.register_full_backward_hook(lambda _module, below, sent: seen.append((below, sent)))
    x = floats(4, 3, 5).requires_grad_()
    net = fa.DFA(model, points=("cell",), example_input=x)
    output = net(x)
    error = torch.ones_like(output)
    output.backward(error)
    ((below, sent),) = seen
    torch.testing.assert_close(sent[0], (error @ net.feedback_matrices["cell"].T).reshape(4, 3, 6))
    torch.testing.assert_close(below[0], x.grad)


def test_a_hook_of_the_deprecated_kind_is_refused_by_name() -> None:
    model = network()
    net = fa.DFA(model)
    model[1].register_backward_hook(lambda *_: None)
    with pytest.raises(PointsError, match=r"point '1' has a backward hook of the kind.*register_full_backward_hook"):
        net(batch()[0])


class WithState(nn.Module):
    """A block that returns its activation and something beside it, as layers of a Transformer do."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(inputs, width), nn.Tanh()

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        return None, self.act(self.layer(x))


class OfBlocks(nn.Module):
    """Two blocks, each of which ends with its own point, and a readout."""

    def __init__(self, *, width: int = 6, tuples: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, second = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, width), nn.Tanh())
        self.blocks = nn.ModuleList([first, WithState(8, width) if tuples else nn.Sequential(second)])
        self.readout = nn.Linear(width, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            given: Any = block(x)
            x = given[1] if isinstance(given, tuple) else given
        logits: Tensor = self.readout(x)
        return logits


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("tuples", "width", "n"), [(False, 6, 12), (True, 6, 12), (False, 600, 500)])
def test_a_hook_on_a_module_that_ends_with_a_point_sees_what_the_point_is_sent(
    tuples: bool, width: int, n: int, early: bool
) -> None:
    """Also around a module around the point, of a tuple, and where the signal is made when the block's turn comes."""
    (x, y), model, seen = batch(n), OfBlocks(width=width, tuples=tuples), list[Any]()
    last = "blocks.1.act" if tuples else "blocks.1.0.1"

    def set_hook() -> None:
        model.blocks[1].register_full_backward_hook(lambda _module, below, sent: seen.append((below, sent)))

    if early:
        set_hook()
    net = fa.DFA(model, ("blocks.0.1", last), example_input=x)
    if not early:
        set_hook()
    x.requires_grad_()
    found = gradients(net, x, y)
    ((below, sent),) = seen
    h = model.blocks[0](x).detach()
    output = net(x)
    (error,) = torch.autograd.grad(functional.cross_entropy(output, y), output)
    torch.testing.assert_close(sent[-1], error @ net.feedback_matrices[last].T, **EXACT)
    assert len(sent) == (2 if tuples else 1)
    # The input of the second block comes from the first point, without a past: it has no gradient.
    assert all(one is None for one in below)
    without = fa.DFA(OfBlocks(width=width, tuples=tuples), ("blocks.0.1", last), example_input=x.detach())
    assert_same(found, gradients(without, x, y), **EXACT)
    assert h.shape[1] == 8


def test_hooks_on_a_module_that_ends_with_a_point_may_change_what_comes_in_and_what_goes_on() -> None:
    (x, y), points = batch(), ("blocks.0.1", "blocks.1.0.1")
    x.requires_grad_()
    before = gradients(fa.DFA(OfBlocks(), points, example_input=x), x, y)
    of_inputs, x.grad = x.grad, None
    assert of_inputs is not None
    net: Any = fa.DFA(OfBlocks(), points, example_input=x)
    net.model.blocks[0].register_full_backward_pre_hook(lambda _module, sent: (2 * sent[0],))
    net.model.blocks[0].register_full_backward_hook(lambda _module, below, _sent: (below[0] / 4,))
    found = gradients(net, x, y)
    torch.testing.assert_close(found["blocks.0.0.weight"], 2 * before["blocks.0.0.weight"], **EXACT)
    torch.testing.assert_close(found["blocks.1.0.0.weight"], before["blocks.1.0.0.weight"], **EXACT)
    torch.testing.assert_close(x.grad, of_inputs / 2, **EXACT)


def test_a_hook_on_a_module_that_goes_on_after_its_points_is_called_by_torch() -> None:
    (x, y), seen = batch(), list[Any]()
    model = nn.Sequential(nn.Sequential(*list(network())[:4], nn.Linear(6, 4).double()), nn.Linear(4, 3).double())
    net = fa.DFA(model, ("0.1", "0.3"), example_input=x)
    model[0].register_full_backward_hook(lambda _module, _below, sent: seen.append(*sent))
    with net.backprop():
        gradients(net, x, y)
    gradients(net, x, y)
    assert len(seen) == 2
    assert torch.equal(*seen)  # above all points, DFA sends the true gradient


@pytest.mark.parametrize("kind", ["full", "before", "deprecated"])
def test_a_hook_that_nobody_would_call_is_refused_by_name(kind: str) -> None:
    """What the module makes of its point has no gradient, so that there is nothing to call the hook with."""
    x, _ = batch()
    inner = nn.Sequential(*list(network())[:4], nn.ReLU())
    net = fa.DFA(nn.Sequential(inner, nn.Linear(6, 3).double()), ("0.1", "0.3"), example_input=x)
    net(x)
    if kind == "deprecated":
        inner.register_backward_hook(lambda *_: None)
    else:
        (inner.register_full_backward_hook if kind == "full" else inner.register_full_backward_pre_hook)(
            lambda *_: None
        )
    with pytest.raises(PointsError, match=r"module '0' has a backward hook that would not be called.*take '0' itself"):
        net(x)


def test_recomputing_refuses_a_hook_on_a_module_around_points() -> None:
    x, _ = batch()
    net: Any = fa.DFA(OfBlocks(), ("blocks.0.1", "blocks.1.0.1"), example_input=x, recompute=True)
    net(x)
    net.model.blocks[1].register_full_backward_hook(lambda *_: None)
    with pytest.raises(PointsError, match=r"module 'blocks\.1' has a backward hook.*leave recompute=True out"):
        net(x)
