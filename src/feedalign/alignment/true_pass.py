"""One forward pass on the model's own graph: the loss, and the Tensor at which the error is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from feedalign.anatomy import arguments, observing, recordable
from feedalign.errors import OutputError
from feedalign.rules import DirectRule


@dataclass(frozen=True)
class Batch:
    """What a measurement runs on.

    Attributes:
        loss_fn: scalar loss of (output, y).
        args: inputs of the model by position.
        kwargs: inputs of the model by keyword.
        y: whatever loss_fn takes.
    """

    loss_fn: Callable[[Any, Any], Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    y: Any

    @classmethod
    def of(cls, net: DirectRule, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Batch:
        """Return the batch of x: an input, a tuple of inputs, or a dict by keyword. Draws the feedback if need be."""
        args, kwargs = arguments(net.model, x)
        if not net.drawn:
            net.prepare(args, kwargs)
        return cls(loss_fn, args, kwargs, recordable(y))


def true_pass(
    net: DirectRule, batch: Batch, see: Callable[[str, Any], Any] | None = None, also: Iterable[str] = ()
) -> tuple[Tensor, Tensor]:
    """Run the model under `net.backprop()` and return the Tensor at which the error is taken, and the loss.

    Args:
        net: a wrapped model.
        batch: what to run it on.
        see: called as see(name, output) when a point or a module in `also` has run; what it returns, unless None, goes
            on in the output's place.
        also: names of further modules to look at.

    Raises:
        OutputError: the loss is not one number with a gradient.
    """
    with torch.enable_grad(), net.backprop(see), observing(net.model, also, see or (lambda *_: None)):
        output = net(*batch.args, **batch.kwargs)
        tapped = net.error_tap.of(output, training=net.model.training)
        entry = tapped.view_as(tapped)  # what the model makes of it elsewhere is no part of the error
        loss = batch.loss_fn(net.error_tap.put(output, tapped, entry), batch.y)
    if loss.numel() != 1 or not loss.requires_grad:
        raise OutputError(
            f"loss_fn must give one number with a gradient, got shape {tuple(loss.shape)}, "
            f"requires_grad={loss.requires_grad}; sum or average over the batch, and do not detach"
        )
    return entry, loss


def backward(
    ends: Sequence[tuple[Tensor | GradientEdge, Tensor | None]], targets: Sequence[Any]
) -> list[Tensor | None]:
    """Return the derivative of the ends, weighted, with respect to each target; None where none depends on it."""
    if not ends or not targets:
        return [None] * len(targets)
    outputs, weights = zip(*ends, strict=True)
    return list(torch.autograd.grad(outputs, targets, weights, allow_unused=True, retain_graph=True))
