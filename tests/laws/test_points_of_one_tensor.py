"""Points that return one and the same Tensor: each is sent its own signal, and nothing leaks past either of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, ROUNDING, assert_same, batch, gradients
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa


class Parallel(nn.Module):
    """Two points that return what they are given: one Tensor, which goes on on two paths."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.p, self.q = nn.Linear(5, 6), nn.Identity(), nn.Identity()
        self.left, self.right, self.readout = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        logits: Tensor = self.readout(torch.tanh(self.left(self.p(h)) + self.right(self.q(h))))
        return logits


class Keeps(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        self.kept: Tensor = torch.tanh(self.layer(x))
        return self.kept


class Gives(nn.Module):
    def __init__(self, keeper: Keeps) -> None:
        super().__init__()
        self.keepers = [keeper]

    def forward(self, _: Tensor) -> Tensor:
        return self.keepers[0].kept


class Kept(Parallel):
    """The first point keeps its Tensor, and the second one returns what was kept, with its past."""

    def __init__(self) -> None:
        super().__init__()
        self.p: Any = Keeps(self.first)
        self.q: Any = Gives(self.p)

    def forward(self, x: Tensor) -> Tensor:
        h = self.p(x)
        logits: Tensor = self.readout(torch.tanh(self.left(h) + self.right(self.q(h))))
        return logits


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rule", [fa.DFA, fa.DRTP, fa.ConditionedDFA, fa.DirectKolenPollack])
@pytest.mark.parametrize("make", [Parallel, Kept])
def test_both_signals_come_down_and_no_other_gradient(make: Any, rule: Any, recompute: bool) -> None:
    x, y = batch()
    model = make()
    net = rule(model, ("p", "q"), example_input=x, recompute=recompute)
    assert fa.validate(make(), ("p", "q"), x).ok
    matrices = {name: matrix.clone() for name, matrix in net.feedback_matrices.items()}
    found = gradients(net, x, y)
    h = torch.tanh(model.first(x))
    cut = h.detach()
    output = model.readout(torch.tanh(model.left(cut) + model.right(cut)))
    loss = functional.cross_entropy(output, y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    message = torch.where(error < 0, -1.0, 0.0).double() / len(y) if rule is fa.DRTP else error
    ends = {"first": (h, message @ (matrices["p"] + matrices["q"]).T)}
    ends |= dict.fromkeys(("left", "right", "readout"), (loss, None))
    expected: dict[str, Tensor] = {}
    for name, (end, sent) in ends.items():
        weight, bias = torch.autograd.grad(end, list(model.get_submodule(name).parameters()), sent, retain_graph=True)
        expected |= {f"{name}.weight": weight, f"{name}.bias": bias}
    assert_same(found, expected, **EXACT)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < ROUNDING


@pytest.mark.parametrize("make", [Parallel, Kept])
def test_alignment_is_that_of_each_path_alone(make: Any) -> None:
    x, y = batch()
    net = fa.DFA(make(), ("p", "q"), example_input=x)
    model: Any = net.model
    h = torch.tanh(model.first(x)).detach()
    left, right = h.clone().requires_grad_(), h.clone().requires_grad_()
    output = model.readout(torch.tanh(model.left(left) + model.right(right)))
    error, *true = torch.autograd.grad(functional.cross_entropy(output, y), [output, left, right])
    found = fa.gradient_alignment(net, functional.cross_entropy, x, y, at="point").per_sample
    for name, derivative in zip(("p", "q"), true, strict=True):
        sent = error @ net.feedback_matrices[name].T
        torch.testing.assert_close(found[name], functional.cosine_similarity(sent, derivative, -1), **EXACT)


def test_a_block_owns_no_parameters_that_do_not_lead_to_its_point() -> None:
    """`left` runs between the two points, on another path: it learns by the true gradient, and says nothing of `q`."""
    x, y = batch()
    net = fa.DFA(Parallel(), ("p", "q"), example_input=x)
    found = fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters")
    sent = gradients(net, x, y)
    with net.backprop():
        true = gradients(net, x, y)
    a, b = (torch.cat([one["first.weight"].flatten(), one["first.bias"]]) for one in (sent, true))
    assert found.layers["p"] == pytest.approx(float(functional.cosine_similarity(a, b, 0)), abs=1e-12)
    assert found.skipped == {"p": 0, "q": 1}
