r"""Rules that send the error from the output straight to every hidden layer: DFA and what differs in the message.

The rule is backprop on a rewired graph. At each feedback point the activation is detached on its way up; one autograd
function, the identity on the output, takes the activations as further inputs and in its backward pass hands each the
message through its own matrix. Blocks are then separate graphs: there is nothing re-entrant, no backward hook, and the
products with transposed forward weights are never computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from feedalign.rules.base import Rule, Taps, check_feedback


def direct_signal(
    error: Float[Tensor, "*batch outputs"], feedback: Float[Tensor, "features outputs"]
) -> Float[Tensor, "*batch features"]:
    r"""Send the output error to one hidden layer.

    .. math:: F_l e

    The factor g'(a_l) of δ_l is autograd's, applied below the feedback point.

    Args:
        error: dloss/doutput [*batch, outputs]; already carries the loss's reduction factor.
        feedback: F_l [features, outputs].

    Returns:
        F_l e of every sample, [*batch, features], in the feedback's precision.
    Source: Nøkland (2016).
    """
    if error.dtype != feedback.dtype:
        error = error.to(feedback.dtype)
    return functional.linear(error, feedback)


class _Send(torch.autograd.Function):
    """Identity on the output; backward, the error to the output and the message through F_l to each activation."""

    @staticmethod
    def forward(
        ctx: Any,
        rule: DirectRule,
        matrices: Sequence[Tensor],
        shapes: Sequence[torch.Size],
        output: Tensor,
        *hidden: Tensor,
    ) -> Tensor:
        ctx.rule, ctx.matrices, ctx.shapes = rule, matrices, shapes
        if rule.learns_feedback:
            ctx.save_for_backward(*hidden)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        rule, matrices = ctx.rule, ctx.matrices
        message = rule.message(error)
        signals = []
        for matrix, shape in zip(matrices, ctx.shapes[1:], strict=True):
            signal = direct_signal(message, matrix)
            # In small networks a call that changes nothing would still cost as much as the product itself. To the
            # activation's own precision autograd casts the signal.
            signals.append(signal if signal.shape == shape else signal.reshape(shape))
        if rule.learns_feedback:
            for matrix, hidden in zip(matrices, ctx.saved_tensors, strict=True):
                rule.learn(matrix, hidden.reshape(*error.shape[:-1], -1), error)
        return None, None, None, error, *signals


class DirectRule(Rule):
    """A rule that sends every hidden layer one message, through the layer's own matrix, while the readout keeps e.

    A subclass says what the message is, `message`; where it learns its feedback, also how, `learn`. For arguments see
    `Rule`.
    """

    learns_feedback: ClassVar[bool] = False

    def message(self, error: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return what is sent through every F_l: here e = ∂loss/∂output itself, with the loss's reduction factor."""
        return error

    def learn(
        self,
        matrix: Float[Tensor, "features outputs"],
        hidden: Float[Tensor, "*batch features"],
        error: Float[Tensor, "*batch outputs"],
    ) -> None:
        """Change F_l in place once the backward pass has sent the message; called if `learns_feedback`.

        Gradients are off in here, and the activations are those of this forward pass.
        """

    def connect(self, output: Tensor, taps: Taps) -> Tensor:
        """Tie the output to every hidden activation through its feedback matrix."""
        names, hidden = [name for name, _ in taps], [activation for _, activation in taps]
        matrices = self.feedback.of(names)
        shapes = [output.shape, *(activation.shape for activation in hidden)]
        # A small network's step is so short that checks made anew each time would show in it.
        if shapes != self._pass.shapes:
            check_feedback(names, matrices, shapes)
            if not torch.compiler.is_compiling():
                self._pass.shapes = shapes
        tied: Tensor = _Send.apply(self, matrices, shapes, output, *hidden)  # type: ignore[no-untyped-call]
        return tied
