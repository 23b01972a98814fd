r"""Direct feedback alignment and its controls: the error goes straight from the output to every layer, or nowhere.

The rule is backprop on a rewired graph. At each feedback point the activation is detached on its way up; one autograd
function, the identity on the output, takes the activations as further inputs and in its backward pass hands each the
error through its own matrix. Blocks are then separate graphs: there is nothing re-entrant, no backward hook, and the
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


class _SendError(torch.autograd.Function):
    """Identity on the output; backward, the error to the output and F_l e to each hidden activation."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, matrices: Sequence[Tensor], *hidden: Tensor) -> Tensor:
        ctx.matrices = matrices
        ctx.like = [(activation.shape, activation.dtype) for activation in hidden]
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        signals = []
        for matrix, (shape, dtype) in zip(ctx.matrices, ctx.like, strict=True):
            signal = direct_signal(error, matrix)
            # In small networks a call that changes nothing would still cost as much as the product itself.
            signals.append(signal if signal.shape == shape else signal.reshape(shape))
            if dtype != matrix.dtype:
                signals[-1] = signals[-1].to(dtype)
        return error, None, *signals


class DFA(Rule):
    r"""Direct feedback alignment: δ_l = (F_l e) ⊙ g'(a_l) for hidden layers, the true gradient for the readout.

    >>> import torch, feedalign as fa
    >>> net = fa.DFA(fa.networks.MLP([4, 8, 3]), seed=0)
    >>> loss = torch.nn.functional.cross_entropy(net(torch.ones(5, 4)), torch.tensor([0, 1, 2, 0, 1]))
    >>> loss.backward()

    Because e = ∂loss/∂output carries the loss's reduction factor, hidden layers and readout share one scale of update.
    The batch axes are all axes of the output but its last one; the error of each entry of the batch goes to the
    features of that entry. For arguments see `Rule`.

    Source: Nøkland (2016).
    """

    def connect(self, output: Tensor, taps: Taps) -> Tensor:
        """Tie the output to every hidden activation through its feedback matrix."""
        matrices = self.feedback_matrices
        check_feedback(taps, output, matrices)
        sent = [matrices[name] for name, _ in taps]
        tied: Tensor = _SendError.apply(output, sent, *(hidden for _, hidden in taps))  # type: ignore[no-untyped-call]
        return tied


class ReadoutOnly(Rule):
    """Train only what lies after the last feedback point: the control that says what random hidden layers are worth.

    The hidden layers' gradients stay None. For arguments see `Rule`; the feedback is not used to learn.
    """


class Backprop(Rule):
    """The true gradient, in the shape of a rule: the reference every other one is measured against.

    For arguments see `Rule`; the feedback is not used to learn, but alignment with it can be measured.
    """

    cuts: ClassVar[bool] = False
