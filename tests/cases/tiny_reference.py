"""Every rule once more, in a few lines that share nothing with the package."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Gradients = dict[str, Tensor]
Run = Callable[[nn.Module], tuple[Tensor, Tensor]]  # a model to the loss and the logits


class Mark(nn.Module):
    """Cuts the graph, and remembers what it has cut."""

    def __init__(self, keep: list[tuple[str, Tensor]], name: str) -> None:
        super().__init__()
        self.keep, self.name = keep, name

    def forward(self, h: Tensor) -> Tensor:
        self.keep.append((self.name, h))
        return h.detach()


def true(model: nn.Module, run: Run) -> Gradients:
    """Return the gradients of the loss."""
    return _gradients(model, run(model)[0])


def direct(
    model: nn.Module, run: Run, matrices: Mapping[str, Tensor], message: Callable[[Tensor], Tensor] | None
) -> Gradients:
    """Return the gradients of loss + Σ_l ⟨h_l, F_l m(e)⟩, with every h_l cut off from what comes after it."""
    kept: list[tuple[str, Tensor]] = []
    cut = copy.deepcopy(model)
    for name in matrices:
        parent, _, child = name.rpartition(".")
        setattr(cut.get_submodule(parent), child, Mark(kept, name))
    loss, logits = run(cut)
    total = loss
    if message is not None:
        (e,) = torch.autograd.grad(loss, logits, retain_graph=True)
        # One row of the message for each entry of the batch; pooled logits are the error of a whole activation.
        m = message(e)
        for name, h in kept:
            total = total + (h.reshape(*m.shape[:-1], -1) * (m @ matrices[name].T)).sum()
    return _gradients(cut, total)


class Through(nn.Module):
    """A layer whose error goes down through another layer of the same kind, with the weight B."""

    def __init__(self, layer: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.layer, self.others = layer, [other]  # in a list, so that the other layer has no name in the model

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.detach())
        down: Tensor = self.others[0](x)
        return y + (down - down.detach())


def sequential(
    model: nn.Module, run: Run, matrices: Mapping[str, Tensor], instead: Callable[[Tensor, Tensor], Tensor]
) -> Gradients:
    """Return the gradients where every layer hands the error down through `instead(B in the weight's shape, W)`."""
    replaced = copy.deepcopy(model)
    for name, B in matrices.items():
        layer: Any = replaced.get_submodule(name)
        other: Any = copy.deepcopy(layer).requires_grad_(False)
        other.weight.copy_(instead(B.T.reshape(layer.weight.shape), layer.weight.detach()))
        parent, _, child = name.rpartition(".")
        setattr(replaced.get_submodule(parent), child, Through(layer, other))
    found = _gradients(replaced, run(replaced)[0])
    return {name.replace(".layer.", "."): gradient for name, gradient in found.items()}


def _gradients(model: nn.Module, loss: Tensor) -> Gradients:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    got = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: each for (name, _), each in zip(named.items(), got, strict=True) if each is not None}
