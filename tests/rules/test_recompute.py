"""`recompute=True`: the model runs a second time in the backward pass, and the step stays what it is."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, batch, gradients, left_by_backward, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, OutputError


class Noisy(nn.Module):
    """Dropout, batch statistics, a module that runs twice, and a skip connection past a point."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.norm, self.drop, self.readout = nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.first[0](x)
        h = self.first(x) + branch
        logits: Tensor = self.readout(self.drop(self.norm(self.twice(self.twice(h)))) + h)
        return logits


def both(rule: Any, options: dict[str, Any], **compared: Any) -> list[Any]:
    """Return two equal wrapped models, one of them with the options compared, and start their randomness alike."""
    nets = []
    for more in ({}, compared):
        torch.manual_seed(0)
        nets.append(rule(Noisy().double(), ["first", "twice"], **options, **more))
    return nets


OPTIONS: list[Any] = [
    (fa.DFA, {}),
    (fa.DFA, {"error": "sign"}),
    (fa.DRTP, {}),
    (fa.DFA, {"batch_dims": 1}),
    (fa.DirectKolenPollack, {}),
    (fa.ConditionedDFA, {"every": 1}),
]


@pytest.mark.parametrize(("rule", "options"), OPTIONS)
def test_recomputed_gradients_are_the_kept_ones(rule: Any, options: Any) -> None:
    """So are the batch statistics, the random state, and the gradient of an input."""
    results = []
    for net in both(rule, options, recompute=True):
        torch.manual_seed(1)
        for step in range(2):
            x, y = batch(seed=step)
            functional.cross_entropy(net(x.requires_grad_()), y).backward()
        found = {name: p.grad for name, p in net.named_parameters()}
        results.append({**found, **dict(net.named_buffers()), "x": x.grad, "random": torch.rand(3)})
    kept, recomputed = results
    assert_same(recomputed, kept, **EXACT)


def test_a_recomputed_step_begins_with_the_buffers_of_the_first_run() -> None:
    x, y = batch()
    steps = []
    for recompute in (False, True):
        model: Any = network().train()
        model[2] = nn.utils.parametrizations.spectral_norm(model[2])
        model[2].parametrizations.weight[0].load_state_dict(spectral_state(model[2]))
        net = fa.DFA(model, recompute=recompute)
        found = gradients(net, x, y)
        steps.append({**found, **{name: buffer.clone() for name, buffer in model.named_buffers()}})
    assert_same(*steps, **EXACT)


def spectral_state(layer: nn.Module) -> dict[str, Tensor]:
    """Return vectors of a norm that has not converged, the same each time."""
    generator = torch.Generator().manual_seed(0)
    state = layer.get_submodule("parametrizations.weight.0").state_dict()
    return {
        name: functional.normalize(torch.randn(v.shape, generator=generator, dtype=v.dtype), dim=0)
        for name, v in state.items()
    }


def test_a_recomputed_step_is_proved_measured_and_repeated() -> None:
    """`check_rule` and `gradient_alignment` take it; a second backward pass of one forward pass adds the same."""
    x, y = batch()
    net = fa.DFA(network(), recompute=True)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12
    kept = fa.gradient_alignment(fa.DFA(network()), functional.cross_entropy, x, y)
    assert fa.gradient_alignment(net, functional.cross_entropy, x, y).total == kept.total
    loss = functional.cross_entropy(net(x), y)
    once = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    loss.backward()
    for parameter, gradient in zip(net.parameters(), once, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("inside", [False, True])
def test_recomputing_keeps_the_precision_of_the_forward_pass(inside: bool) -> None:
    """Also where the backward pass itself runs under autocast, whose cached casts record no graph."""
    x, y = batch()
    found = []
    for recompute in (False, True):
        net = fa.DFA(network().float(), recompute=recompute)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(net(x.float()), y)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        found.append(left_by_backward(net))
    assert_same(*found)


class Saved:
    """A Tensor that autograd has saved."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def most_saved(depth: int, *, recompute: bool) -> int:
    """Return the largest number of Tensors that autograd holds at a time in a step."""
    alive: weakref.WeakSet[Saved] = weakref.WeakSet()
    most = 0

    def pack(tensor: Tensor) -> Saved:
        nonlocal most
        if tensor.data_ptr() in parameters:  # the model holds those
            return Saved(tensor)
        saved = Saved(tensor.detach())  # an operation's own output would hold the operation, which holds it
        alive.add(saved)
        most = max(most, len(alive))
        return saved

    net = fa.DFA(fa.networks.MLP([5] * depth + [3]).double(), recompute=recompute)
    parameters = {parameter.data_ptr() for parameter in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        gradients(net, *batch())
    return most


def test_a_recomputed_step_holds_the_graph_of_one_block_however_many_there_are() -> None:
    assert most_saved(12, recompute=True) == most_saved(4, recompute=True)
    assert most_saved(12, recompute=False) > most_saved(4, recompute=False) > most_saved(4, recompute=True)


def test_recomputing_takes_the_error_of_a_tensor_only() -> None:
    with pytest.raises(
        ArgumentError, match=r"recompute=True with output='logits'.*wrap a model that returns this Tensor"
    ):
        fa.DFA(network(), output="logits", recompute=True)


def test_a_model_without_a_readout_is_refused_in_the_backward_pass() -> None:
    """The last block would learn from feedback as well, and nothing from the true error."""
    x, y = batch()
    net = fa.DFA(nn.Sequential(*network(), nn.Identity()), ("1", "5"), recompute=True)
    loss = functional.cross_entropy(net(x), y)
    with pytest.raises(OutputError, match=r"no trainable parameter lies after the last feedback point"):
        loss.backward()
    assert all(parameter.grad is None for parameter in net.parameters())
