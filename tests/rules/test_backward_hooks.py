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
