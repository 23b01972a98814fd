"""Small models that do unusual things, under direct rules: every gradient against DFA written down by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, batch, left_by_backward
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import feedalign as fa

Loss = Callable[[Tensor], Tensor]


class Layers(nn.Module):
    """Two points between three layers; the cases change one thing each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.readout = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.p, self.q = nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Any:
        return self.readout(self.q(self.b(self.p(self.a(x)))))


class Chosen(Layers):
    """Its second block is one of two, chosen at run time, and runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({name: nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for name in ("one", "other")})
        self.names = ("one", "other")

    def forward(self, x: Tensor) -> Any:
        h = self.p(self.a(x))
        for name in self.names:
            h = self.blocks[name](h)
        self.names = ("other", "other")
        return self.readout(h)


class Checkpointed(Layers):
    """A point is within a checkpoint, and the block of the other one holds a checkpoint."""

    def forward(self, x: Tensor) -> Any:
        h = self.p(checkpoint(self.a, x, use_reentrant=False))
        return self.readout(checkpoint(lambda t: self.q(self.b(t)), h, use_reentrant=False))


class Recurrent(Layers):
    """The point is beside the recurrence, which the rule leaves as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 6)

    def forward(self, x: Tensor) -> Any:
        h, seen = x.new_zeros(len(x), 6), []
        for _ in range(3):
            h = self.cell(x, h)
            seen.append(self.p(h))
        return self.readout(self.q(self.b(torch.stack(seen).mean(0) + self.a(x))))


class Complex(Layers):
    """All parameters below the first point are complex."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Parameter(torch.randn(5, 6, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Any:
        h = self.p((x.to(self.spectrum.dtype) @ self.spectrum).abs() + self.a(x))
        return self.readout(self.q(self.b(h)))


class OwnParameters(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Any:
        return self.readout(self.q(self.gain * self.b(self.p(self.a(x) + self.shift))))


def changed(change: Callable[[Layers], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = Layers().double()
        change(model)
        return model

    return make


def tied(model: Layers) -> None:
    model.readout = nn.Linear(6, 6).double()
    model.readout.weight = model.b.weight


def everything(output: Tensor) -> Tensor:
    return functional.cross_entropy(output, batch()[1])


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "block chosen at run time": (Chosen, ("p", "blocks.one", "blocks.other")),
    "checkpoints": (Checkpointed, ("p", "q")),
    "recurrence": (Recurrent, ("p", "q")),
    "complex parameters": (Complex, ("p", "q")),
    "parameters of the model itself": (OwnParameters, ("p", "q")),
    "weights tied with the readout": (changed(tied), ("p", "q")),
    "weight norm": (changed(lambda model: parametrizations.weight_norm(model.b)), ("p", "q")),
    "spectral norm": (changed(lambda model: parametrizations.spectral_norm(model.b)), ("p", "q")),
    "orthogonal": (changed(lambda model: parametrizations.orthogonal(model.b)), ("p", "q")),
    "frozen readout": (changed(lambda model: model.readout.requires_grad_(False)), ("p", "q")),
    "frozen block": (changed(lambda model: model.b.requires_grad_(False)), ("p", "q")),
}
LOSSES: dict[str, Loss] = {
    "everything": everything,
    "a slice of the outputs": lambda output: functional.cross_entropy(output[:, :2], batch()[1].clamp(max=1)),
    "a slice of the batch": lambda output: functional.cross_entropy(output[::2], batch()[1][::2]),
    "one number": lambda output: output[3, 1],
    "ignored everywhere": lambda output: functional.cross_entropy(
        output, torch.full((len(output),), -100), reduction="sum"
    ),
    "a weight without axes that is zero": lambda output: torch.zeros((), dtype=output.dtype) * everything(output),
}
CASES = [*((model, "everything") for model in MODELS), *(("recurrence", loss) for loss in LOSSES)]


def by_hand(model: nn.Module, matrices: dict[str, Tensor], x: Tensor, loss_of: Loss) -> dict[str, Tensor]:
    """Return the gradients of plain autograd in a model that is cut at the points, with F e at every cut."""
    ends: list[tuple[str, Tensor]] = []

    def cut(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, h: Tensor) -> Tensor:
            ends.append((name, h))
            return h.detach()

        return hook

    for name in matrices:
        model.get_submodule(name).register_forward_hook(cut(name))
    output = model(x)
    if not output.requires_grad:  # above a frozen readout
        output.requires_grad_()
    loss = loss_of(output)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    loss.backward(retain_graph=True)
    for name, h in list(ends):
        if h.requires_grad:
            h.backward(error @ matrices[name].T, retain_graph=True)
    return left_by_backward(model)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack])
@pytest.mark.parametrize(("model", "loss"), CASES)
def test_every_gradient_is_that_of_dfa_by_hand(model: str, loss: str, rule: Any, recompute: bool) -> None:
    (make, points), (x, _) = MODELS[model], batch()
    with torch.random.fork_rng([]):
        net, twin = rule(make().double(), points, seed=3, example_input=x, recompute=recompute), make().double()
        with torch.no_grad():
            twin.eval()(x)  # as the example input was run
        matrices = {name: matrix.clone() for name, matrix in net.feedback_matrices.items()}
        LOSSES[loss](net(x)).backward()
        expected = by_hand(twin.train(), matrices, x, LOSSES[loss])
    assert_same(nonzero(left_by_backward(net)), nonzero(expected), **EXACT)


def nonzero(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients that are not zero everywhere; none at all says the same."""
    return {name: gradient for name, gradient in found.items() if gradient.any()}
