"""What a rule sends is no derivative of a function, so nobody may differentiate it: a second derivative is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from feedalign.errors import ArgumentError


class _Once(torch.autograd.Function):
    """The identity on what a rule sends; its own backward pass raises an error."""

    @staticmethod
    def forward(_ctx: Any, _error: Tensor, *sent: Tensor) -> tuple[Tensor, ...]:
        return tuple(one.detach() for one in sent)

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor) -> NoReturn:
        raise ArgumentError(
            "the gradient of a gradient was asked for (create_graph=True), and a rule's gradient is no derivative of "
            "the loss, so it has none; compute a gradient penalty, a Hessian or the like within net.backprop(), where "
            "the gradient is the true one"
        )


class _Through(torch.autograd.Function):
    """The identity on a Tensor, whose gradient can be taken once."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.detach()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return once(gradient, (gradient,))[0]


def once(error: Tensor, sent: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return what a rule sends in a backward pass; ArgumentError when the result is differentiated once more.

    Args:
        error: from which `sent` was computed.
        sent: what a backward pass is about to hand on.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # without create_graph=True, the usual case
        return sent
    # An error that is constant, as of a sum of the outputs, must lead to the refusal as well.
    known = error if error.requires_grad else error.detach().requires_grad_()
    refusing: tuple[Tensor, ...] = _Once.apply(known, *sent)  # type: ignore[no-untyped-call]
    return refusing


def differentiated_once(tensor: Tensor) -> Tensor:
    """Return the same Tensor; ArgumentError when its gradient is differentiated once more."""
    through: Tensor = _Through.apply(tensor)  # type: ignore[no-untyped-call]
    return through
