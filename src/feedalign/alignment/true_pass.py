"""One forward pass on the model's own graph: the loss, and the Tensor at which the error is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from feedalign.anatomy import PassMasks, arguments, observing, recordable, tapped
from feedalign.errors import OutputError
from feedalign.rules import DirectRule


@dataclass(frozen=True)
class Batch:
    """What a measurement runs on."""

    loss_fn: Callable[[Any, Any], Tensor]  # scalar loss of (output, y)
    args: tuple[Any, ...]  # inputs of the model by position
    kwargs: dict[str, Any]  # inputs of the model by keyword
    y: Any
    masks: PassMasks | None  # which entries of the inputs are real; None if all of them are

    @classmethod
    def of(cls, net: DirectRule, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Batch:
        """Return the batch of x: an input, a tuple of inputs, or a dict by keyword. Draws the feedback if need be."""
        args, kwargs = arguments(net.model, x)
        if not net.drawn:
            net.prepare(args, kwargs)
        return cls(loss_fn, args, kwargs, recordable(y), net.masks_of(args, kwargs))


def true_pass(
    net: DirectRule, batch: Batch, see: Callable[[str, Any], Any], also: Iterable[str] = ()
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Run the model under `net.backprop()` and return the Tensors at which the error is taken, and the loss.

    `see` is called as see(name, output) when a point or a module in `also` has run. What it returns, unless None, goes
    on in the output's place.
    """
    with torch.enable_grad(), net.backprop(see), observing(net.model, also, see):
        output, entries = tapped(
            net.model,
            net.error_tap,
            lambda: net(*batch.args, **batch.kwargs),
            _recorded_view,  # what the model makes of an entry elsewhere is no part of the error
            training=net.model.training,
        )
        return entries, check_loss(batch.loss_fn(output, batch.y))


def check_loss(loss: Tensor) -> Tensor:
    """Return the loss; OutputError unless it is one number with a gradient."""
    if loss.numel() != 1 or not loss.requires_grad:
        raise OutputError(
            f"loss_fn must give one number with a gradient, got shape {tuple(loss.shape)}, "
            f"requires_grad={loss.requires_grad}; sum or average over the batch, and do not detach"
        )
    return loss


def _recorded_view(tensor: Tensor) -> Tensor:
    """Return an equal Tensor with a gradient; directly above frozen blocks a Tensor inside of the pass has none."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def backward(
    ends: Sequence[tuple[Tensor | GradientEdge, Tensor | None]], targets: Sequence[Any]
) -> list[Tensor | None]:
    """Return the derivative of the ends, weighted, with respect to each target; None where none depends on it."""
    if not ends or not targets:
        return [None] * len(targets)
    outputs, weights = zip(*ends, strict=True)
    return list(torch.autograd.grad(outputs, targets, weights, allow_unused=True, retain_graph=True))
