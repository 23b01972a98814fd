"""Gradient alignment takes derivatives from autograd, whatever leads from the weights to a point and past the point."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from tests.cases.small import dfa_and_batch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa


class Loop(nn.Module):
    """A cell that runs three times, and a point that returns a tuple: what is below runs through both."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.act = nn.Linear(5, 5), nn.Tanh()
        self.rnn, self.out = nn.GRU(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for _ in range(3):
            h = self.act(self.cell(h) + x)
        sequence, last = self.rnn(h[:, None])
        output: Tensor = self.out(sequence[:, 0] + last[0])
        return output


NETS: dict[str, Any] = {
    "mlp": lambda: (fa.networks.MLP([5, 8, 6, 3], seed=1), "auto"),
    "relu in place": lambda: (nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)), "auto"),
    "batch norm": lambda: (
        nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)),
        "auto",
    ),
    "loop": lambda: (Loop(), ("act", "rnn")),
}


@pytest.mark.parametrize("rule", [fa.DFA, fa.DRTP])
@pytest.mark.parametrize("kind", NETS)
def test_at_the_parameters_it_compares_what_loss_backward_leaves_there(kind: str, rule: Any) -> None:
    torch.manual_seed(0)
    model, points = NETS[kind]()
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randint(3, (7,))
    net = rule(model, points=points, seed=3).double()
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters")
    gradients = []
    for context in (contextlib.nullcontext(), net.backprop()):
        net.zero_grad()
        with context:
            functional.cross_entropy(net(x), y).backward()
        gradients.append({name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None})
    whole: list[list[Tensor]] = [[], []]
    for point in net.points:
        modules = dict.fromkeys(name for block in net.blocks if block.point == point for name in block.modules)
        names = [f"{m}.{n}" for m in modules for n, _ in net.model.get_submodule(m).named_parameters(recurse=False)]
        sent, true = (torch.cat([side[name].flatten() for name in names]) for side in gradients)
        assert measured.layers[point] == pytest.approx(float(functional.cosine_similarity(sent, true, dim=0)), abs=1e-9)
        assert measured.norm_ratios[point] == pytest.approx(float(sent.norm() / true.norm()), rel=1e-9)
        for side, part in zip(whole, (sent, true), strict=True):
            side.append(part)
    total = functional.cosine_similarity(torch.cat(whole[0]), torch.cat(whole[1]), dim=0)
    assert measured.total == pytest.approx(float(total), abs=1e-9)


class Cube(torch.autograd.Function):
    """An activation written in Python, whose graph is autograd's to run."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        grown: Tensor = 3 * a**2 * gradient
        return grown


class Called(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor) -> Tensor:
        h: Tensor = self.function(a)
        return h


WAYS: dict[str, Any] = {
    "tanh": nn.Tanh,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "identity": nn.Identity,
    "several in a row": lambda: nn.Sequential(nn.ELU(), nn.Dropout(0.3), nn.Unflatten(1, (2, 4)), nn.Flatten()),
    "layer norm without parameters": lambda: nn.LayerNorm(8, elementwise_affine=False),
    "uses it twice": lambda: Called(lambda a: a * a.sigmoid()),
    "changes it in place": lambda: Called(lambda a: a.mul_(2).tanh()),
    "in Python": lambda: Called(Cube.apply),
    "single precision in between": lambda: Called(lambda a: a.float().tanh().double()),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_leads_from_the_weights_to_the_point_it_is_autograds_derivative(way: str) -> None:
    _, x, y = dfa_and_batch()
    torch.manual_seed(0)
    first, point, readout = nn.Linear(5, 8), WAYS[way](), nn.Linear(8, 3)
    net = fa.DFA(nn.Sequential(first, point, readout), points=["1"], seed=1).double()
    torch.manual_seed(5)
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y).per_sample["1"]
    torch.manual_seed(5)  # the same dropout
    a = first(x)
    h = point(a.clone())
    output = readout(h.clone())
    e, true = torch.autograd.grad(functional.cross_entropy(output, y), [output, a], retain_graph=True)
    (sent,) = torch.autograd.grad(h, a, (e @ net.feedback_matrices["1"].T).to(h.dtype))
    expected = functional.cosine_similarity(true, sent, dim=-1)
    torch.testing.assert_close(measured, expected, rtol=1e-9, atol=1e-11)


class Bypassed(nn.Module):
    """The pre-activation goes on past the point; one matrix serves two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.one, self.act, self.two = nn.Linear(5, 6), nn.Linear(6, 6), nn.Tanh(), nn.Tanh()
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.one(self.embed(x))
        h = self.act(a)
        output: Tensor = self.readout(self.two(self.one(h) + a))
        return output


def test_what_goes_past_a_point_is_in_the_parameters_gradients_and_not_in_the_points_derivative() -> None:
    _, x, y = dfa_and_batch()
    torch.manual_seed(0)
    model = Bypassed().double()
    net = fa.DFA(model, points=("act", "two"), seed=1)
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    a = model.one(model.embed(x))
    h = model.act(a)
    output = model.readout(model.two(model.one(h) + a))
    e, at_h = torch.autograd.grad(functional.cross_entropy(output, y), [output, h])
    slope = 1 - h.detach() ** 2
    true, sent = at_h * slope, (e @ net.feedback_matrices["act"].T) * slope
    expected = functional.cosine_similarity(true, sent, dim=-1)
    torch.testing.assert_close(measured.per_sample["act"], expected, rtol=1e-9, atol=1e-11)
    updates = fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters")
    gradients = []
    for context in (contextlib.nullcontext(), net.backprop()):
        net.zero_grad()
        with context:
            functional.cross_entropy(net(x), y).backward()
        of_two = (model.one.weight.grad, model.one.bias.grad)
        gradients.append(torch.cat([gradient.flatten() for gradient in of_two if gradient is not None]))
    cosine = functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert updates.layers["two"] == pytest.approx(float(cosine), abs=1e-9)


def test_an_activation_that_works_in_place_changes_nothing() -> None:
    _, x, y = dfa_and_batch()
    cosines = []
    for inplace in (False, True):
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace), nn.Linear(8, 3)).double()
        with torch.no_grad():
            for i, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape) * (i + 1))
        net = fa.DFA(model)
        cosines.append(fa.gradient_alignment(net, functional.cross_entropy, x, y).per_sample["1"])
    torch.testing.assert_close(cosines[0], cosines[1], rtol=0, atol=1e-14, equal_nan=True)


class Viewed(nn.Module):
    """A module that gives a view of what it has computed, as many do, with parameters or without."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.weight, self.inner = nn.Parameter(torch.ones(())), inner

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.inner(self.weight * x)
        return h.view(len(h), -1)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("at", ["preactivation", "point", "parameters"])
def test_in_place_operations_on_views_change_nothing(at: Any, frozen: bool) -> None:
    """The pre-activation is a view on which the activation works in place; so is the second point, and what follows."""
    _, x, y = dfa_and_batch()
    measured = []
    for inplace in (False, True):
        torch.manual_seed(0)
        layers = [
            Viewed(nn.Linear(5, 8)),
            nn.ReLU(inplace),
            Viewed(nn.Linear(8, 8)),
            nn.ELU(2.0, inplace),
            nn.Linear(8, 3),
        ]
        model = nn.Sequential(*layers).double()
        model[0].requires_grad_(not frozen)
        net = fa.DFA(model, points=("1", "2"), seed=1)
        measured.append(fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at))
    plain, in_place = measured
    assert in_place.layers == pytest.approx(plain.layers, abs=1e-12, nan_ok=True)
    assert in_place.norm_ratios == pytest.approx(plain.norm_ratios, rel=1e-12, nan_ok=True)
    assert abs(plain.layers["2"]) > 1e-3


def test_a_point_seen_under_the_true_gradient_can_be_replaced() -> None:
    net, x, _ = dfa_and_batch()
    seen = []

    def see(name: str, output: Tensor) -> Tensor:
        seen.append(name)
        return torch.zeros_like(output)

    with net.backprop(see):
        output = net(x)
    assert seen == ["1", "3"]
    torch.testing.assert_close(output, net.model.get_parameter("4.bias").expand_as(output))
    assert not torch.equal(net(x), output)  # outside, nobody sees
