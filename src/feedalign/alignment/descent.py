"""Measured descent: what a step of the rule does to the loss, beside a step of backprop of the same length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from feedalign.anatomy import arguments, recordable, undisturbed
from feedalign.checks import positive_number
from feedalign.errors import ArgumentError
from feedalign.rules import Wrapped, check_whole, check_wrapped

Gradients = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Descent:
    """Change of the loss in one step along the rule's gradient, and along backprop's of the same length.

    Attributes:
        rule: loss after the rule's step minus loss before; negative is good.
        backprop: the same for the step along the true gradient.
        ratio: rule over backprop: 1 is as good as backprop, 0 nothing, below 0 the loss rises. For short steps it
            is the cosine of the two gradients of all parameters.
        length: of both steps, in the Euclidean norm of all trainable parameters.
    """

    rule: float
    backprop: float
    ratio: float
    length: float


def descent(net: Wrapped, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any, *, lr: float) -> Descent:
    """Measure how far one step of plain gradient descent under the rule lowers the loss on a batch.

    Two forward and backward passes for the gradients and three forward passes for the losses, in evaluation mode; the
    net, its gradients and the random state stay as they are.

    Args:
        net: a wrapped model.
        loss_fn: scalar loss of (output, y); its reduction factor counts, as in training.
        x: input, a tuple of inputs, or a dict of inputs by keyword.
        y: whatever loss_fn takes.
        lr: learning rate of the rule's step, lr · gradient; backprop's step is scaled to its length.

    Raises:
        ArgumentError: `net` is not wrapped, `fully_shard` has sharded the model, `lr` is not positive, or a gradient is
            zero, so that no step can be taken.
    """
    check_wrapped(net)
    check_whole(net, "descent")
    lr = positive_number("lr", lr)
    args, kwargs = arguments(net.model, x)
    y = recordable(y)

    @torch.enable_grad()
    def gradients() -> Gradients:
        trained = {name: parameter for name, parameter in net.model.named_parameters() if parameter.requires_grad}
        loss = loss_fn(net(*args, **kwargs), y)
        found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        return {name: one.detach() for name, one in zip(trained, found, strict=True) if one is not None}

    def loss_after(gradients: Gradients, scale: float) -> float:
        moved = {name: net.model.get_parameter(name) - scale * gradient for name, gradient in gradients.items()}
        return float(loss_fn(functional_call(net.model, moved, args, kwargs), y))

    with torch.inference_mode(False), undisturbed(net, net.model):
        sent = gradients()
        with net.backprop():
            true = gradients()
        lengths = [_norm(gradients) for gradients in (sent, true)]
        if not min(lengths) > 0:
            raise ArgumentError(
                f"the gradients have lengths {lengths[0]:.3g} under the rule and {lengths[1]:.3g} under backprop; "
                "there is no step to compare"
            )
        with torch.no_grad():
            before, after_rule = loss_after(sent, 0.0), loss_after(sent, lr)
            after_backprop = loss_after(true, lr * lengths[0] / lengths[1])
    rule, backprop = after_rule - before, after_backprop - before
    return Descent(rule, backprop, rule / backprop if backprop else float("nan"), lr * lengths[0])


def _norm(gradients: Gradients) -> float:
    return float(sum(gradient.double().square().sum() for gradient in gradients.values()) ** 0.5)
