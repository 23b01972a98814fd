r"""How the message leaves the output, and how it reaches an activation: two autograd functions.

DFA is backprop on a rewired graph. At each feedback point the activation is detached on its way up. `send`, the
identity on the output, takes the activations as further inputs, and in its backward pass hands each its signal. Blocks
are then separate graphs, and the products with transposed forward weights are never computed.

A large activation gives `receive` in its place: an empty token, which `send` takes as an input. Autograd runs what
was recorded last first. So it comes to the token of the topmost block, and finishes that block before it comes to the
next one. The signal of a block is made when its turn comes, and there is one large signal at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from feedalign.rules.once import once

Signals = Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]]


class _Send(torch.autograd.Function):
    """The identity on the output; in the backward pass, the error to the output and a signal to each activation."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, signals: Signals, keep: bool, *hidden: Tensor) -> Tensor:
        ctx.signals = signals
        if keep:
            ctx.save_for_backward(*hidden)
        return output.detach()  # no view of the output, so that what follows may change the output in place

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        return error, None, None, *once(error, ctx.signals(error, ctx.saved_tensors))


class _Receive(torch.autograd.Function):
    """From an activation to an empty token; in the backward pass, the activation's signal."""

    @staticmethod
    def forward(ctx: Any, activation: Tensor, signal: Callable[[], Tensor]) -> Tensor:
        ctx.signal = signal
        return activation.new_empty(0)

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> tuple[Tensor | None, ...]:
        return *once(token, (ctx.signal(),)), None


def send(output: Tensor, signals: Signals, hidden: Sequence[Tensor], *, keep: bool) -> Tensor:
    """Return the output, whose backward pass sends each hidden activation its signal.

    Args:
        output: where the error is taken, [*batch, C].
        signals: called as signals(error, hidden); returns what each of `hidden` is sent.
        hidden: activations, or tokens of `receive`.
        keep: whether `signals` gets `hidden`. Otherwise it gets nothing, and nothing is kept.
    """
    tied: Tensor = _Send.apply(output, signals, keep, *hidden)  # type: ignore[no-untyped-call]
    return tied


def receive(activation: Tensor, signal: Callable[[], Tensor]) -> Tensor:
    """Return an empty token. When `send` sends something to the token, the activation is sent `signal()`."""
    token: Tensor = _Receive.apply(activation, signal)  # type: ignore[no-untyped-call]
    return token
