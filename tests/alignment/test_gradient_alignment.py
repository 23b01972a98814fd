"""Gradient alignment against the definition written out, and its invariances."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, OutputError


def setup(activation: str = "tanh", n: int = 9) -> tuple[fa.DFA, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    net = fa.DFA(fa.networks.MLP([5, 8, 6, 3], activation, seed=1), seed=2).double()
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return net, x, torch.randint(3, (n,), generator=generator)


def written_out(net: fa.DFA, x: Tensor, y: Tensor, at: str) -> dict[str, tuple[Tensor, Tensor]]:
    """(δ_BP, δ_DFA) at every point of the tanh network, from the equations."""
    W1, W2, W3 = (net.model.get_parameter(f"{i}.weight").detach() for i in (0, 2, 4))
    b1, b2, b3 = (net.model.get_parameter(f"{i}.bias").detach() for i in (0, 2, 4))
    h1 = torch.tanh(x @ W1.T + b1)
    h2 = torch.tanh(h1 @ W2.T + b2)
    e = (h2 @ W3.T + b3).softmax(-1) - functional.one_hot(y, 3)
    F1, F2 = net.feedback_matrices["1"], net.feedback_matrices["3"]
    g1, g2 = 1 - h1**2, 1 - h2**2
    back2 = e @ W3
    back1 = (back2 * g2) @ W2
    if at == "point":
        return {"1": (back1, e @ F1.T), "3": (back2, e @ F2.T)}
    return {"1": (back1 * g1, (e @ F1.T) * g1), "3": (back2 * g2, (e @ F2.T) * g2)}


@pytest.mark.parametrize("at", ["preactivation", "point"])
def test_cosines_equal_the_definition(at: Any) -> None:
    net, x, y = setup()
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at)
    expected = written_out(net, x, y, at)
    for name, (true, sent) in expected.items():
        cosines = functional.cosine_similarity(true, sent, dim=-1)
        torch.testing.assert_close(measured.per_sample[name], cosines, rtol=1e-10, atol=1e-12)
        assert measured.layers[name] == pytest.approx(float(cosines.mean()), abs=1e-12)
    all_true, all_sent = (torch.cat(side, -1) for side in zip(*expected.values(), strict=True))
    whole = functional.cosine_similarity(all_true, all_sent, dim=-1)
    assert measured.total == pytest.approx(float(whole.mean()), abs=1e-12)
    assert measured.skipped == {"1": 0, "3": 0}


@pytest.mark.parametrize("at", ["preactivation", "point"])
def test_norm_ratios_equal_the_definition(at: Any) -> None:
    net, x, y = setup()
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at)
    for name, (true, sent) in written_out(net, x, y, at).items():
        assert measured.norm_ratios[name] == pytest.approx(float(sent.norm() / true.norm()), rel=1e-10)


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
    _, x, y = setup()
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
    _, x, y = setup()
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


def test_at_the_parameters_a_frozen_block_is_skipped() -> None:
    net, x, y = setup()
    net.model.get_submodule("0").requires_grad_(False)
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters")
    assert measured.skipped == {"1": 1, "3": 0}
    assert math.isnan(measured.layers["1"])
    assert not math.isnan(measured.total)


def test_backward_weights_as_feedback_align_perfectly_in_the_top_layer() -> None:
    net, x, y = setup()
    net.feedback_matrices["3"].copy_(net.model.get_parameter("4.weight").detach().T)
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    assert measured.layers["3"] == pytest.approx(1.0, abs=1e-12)
    net.feedback_matrices["3"].mul_(-5)
    assert fa.gradient_alignment(net, functional.cross_entropy, x, y).layers["3"] == pytest.approx(-1.0, abs=1e-12)


def test_scale_of_feedback_and_reduction_of_loss_do_not_matter() -> None:
    net, x, y = setup()
    before = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    net.feedback_matrices["1"].mul_(1e-3)
    after = fa.gradient_alignment(net, lambda o, t: 1e-9 * functional.cross_entropy(o, t, reduction="sum"), x, y)
    assert after.layers == pytest.approx(before.layers, abs=1e-10)


def test_permuting_the_batch_permutes_the_cosines() -> None:
    net, x, y = setup()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    base = fa.gradient_alignment(net, functional.cross_entropy, x, y).per_sample["1"]
    moved = fa.gradient_alignment(net, functional.cross_entropy, x[order], y[order]).per_sample["1"]
    torch.testing.assert_close(moved, base[order], rtol=1e-10, atol=1e-12)


def test_an_activation_that_works_in_place_changes_nothing() -> None:
    _, x, y = setup()
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
    _, x, y = setup()
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
    net, x, _ = setup()
    seen = []

    def see(name: str, output: Tensor) -> Tensor:
        seen.append(name)
        return torch.zeros_like(output)

    with net.backprop(see):
        output = net(x)
    assert seen == ["1", "3"]
    torch.testing.assert_close(output, net.model.get_parameter("4.bias").expand_as(output))
    assert not torch.equal(net(x), output)  # outside, nobody sees


def test_samples_without_a_derivative_are_left_out_and_counted() -> None:
    """A sample whose hidden units are all silent has δ = 0 and no angle; the mean is over the others."""
    net, x, y = setup("relu")
    with torch.no_grad():
        net.model.get_parameter("0.bias").zero_()
    x[:2] = 0.0
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    assert measured.skipped["1"] >= 2
    assert measured.per_sample["1"][:2].isnan().all()
    kept = measured.per_sample["1"][~measured.per_sample["1"].isnan()]
    assert len(kept) + measured.skipped["1"] == len(x)
    assert measured.layers["1"] == pytest.approx(float(kept.mean()), abs=1e-12)


def test_tiny_gradients_keep_their_angle_in_single_precision() -> None:
    net, x, y = setup()
    exact = fa.gradient_alignment(net, functional.cross_entropy, x, y).layers
    tiny = fa.gradient_alignment(net.float(), lambda o, t: 1e-30 * functional.cross_entropy(o, t), x.float(), y)
    assert tiny.skipped == {"1": 0, "3": 0}
    assert tiny.layers == pytest.approx(exact, abs=1e-5)  # float32 forward passes differ by rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("at", ["preactivation", "point", "parameters"])
def test_half_precision_finds_the_same_angles(dtype: torch.dtype, at: Any) -> None:
    """Errors of some 1e-3, whose squares are below float16's range."""
    net, x, y = setup()
    exact = fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at)
    half = fa.gradient_alignment(net.to(dtype), lambda o, t: functional.cross_entropy(o, t) / 64, x.to(dtype), y, at=at)
    assert half.skipped == exact.skipped
    assert half.layers == pytest.approx(exact.layers, abs=0.05 if dtype == torch.bfloat16 else 0.01)
    assert half.norm_ratios == pytest.approx(exact.norm_ratios, rel=0.1 if dtype == torch.bfloat16 else 0.02)


def test_measuring_leaves_no_gradient_and_training_as_it_was() -> None:
    net, x, y = setup()
    fa.gradient_alignment(net, functional.cross_entropy, x, y)
    assert all(p.grad is None for p in net.parameters())
    functional.cross_entropy(net(x), y).backward()
    with_measurement = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    other, *_ = setup()
    functional.cross_entropy(other(x), y).backward()
    for a, p in zip(with_measurement, other.parameters(), strict=True):
        assert p.grad is not None
        assert torch.equal(a, p.grad)


def test_it_works_within_no_grad_and_below_frozen_layers() -> None:
    net, x, y = setup()
    expected = fa.gradient_alignment(net, functional.cross_entropy, x, y).layers
    net.model.get_submodule("0").requires_grad_(False)
    with torch.no_grad():
        assert fa.gradient_alignment(net, functional.cross_entropy, x, y).layers == pytest.approx(expected, abs=1e-12)


def test_an_ensemble_is_measured_network_by_network() -> None:
    _, x, y = setup()
    ensemble: Any = fa.DFA(fa.networks.EnsembleMLP(3, [5, 8, 6, 3]), seed=2).double()

    def summed(output: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), labels.repeat(3), reduction="sum")

    together = fa.gradient_alignment(ensemble, summed, x, y)
    for i, state in enumerate(ensemble.model.state_dicts()):
        model: Any = fa.networks.MLP([5, 8, 6, 3]).double()
        model.load_state_dict(state)
        alone = fa.gradient_alignment(fa.DFA(model, seed=2), functional.cross_entropy, x, y)
        for name in alone.layers:
            torch.testing.assert_close(together.per_sample[name][i], alone.per_sample[name], rtol=1e-6, atol=1e-8)


def test_a_block_without_parameters_of_its_own_and_a_block_ended_by_its_weights() -> None:
    """Deep linear network, points on the linear layers themselves: pre-activation and point are one."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)).double()
    net, (_, x, y) = fa.DFA(model), setup()
    both = [
        fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at).layers for at in ("preactivation", "point")
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-14)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda o, t: functional.cross_entropy(o, t, reduction="none"), r"got shape \(9,\)"),
        (lambda o, t: functional.cross_entropy(o.detach(), t), "requires_grad=False"),
        (lambda o, t: functional.cross_entropy(o, t) * float("nan"), "derivative at point '3' is not finite"),
    ],
)
def test_a_loss_without_a_usable_gradient_is_refused(loss_fn: Any, message: str) -> None:
    net, x, y = setup()
    with pytest.raises(OutputError, match=message):
        fa.gradient_alignment(net, loss_fn, x, y)


def test_unknown_place_is_refused() -> None:
    net, x, y = setup()
    with pytest.raises(
        ArgumentError, match="at='input' is unknown; expected one of 'preactivation', 'point', 'parameters'"
    ):
        fa.gradient_alignment(net, functional.cross_entropy, x, y, at="input")  # type: ignore[arg-type]
