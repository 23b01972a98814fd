"""What one hidden layer is sent."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from feedalign.anatomy import PassMasks, without_padding
from feedalign.feedback import Form


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


def signal(
    message: Float[Tensor, "*batch columns"],
    stored: Float[Tensor, "stored columns"],
    form: Form,
    shape: Sequence[int],
    mask: Tensor | None = None,
) -> Tensor:
    """Send a message to one point, through the few numbers that its matrix is made of.

    Args:
        message: what the rule sends, behind the matrix R that all points share, if there is one.
        stored: the numbers that are held for the point.
        form: how F of the point is made of them.
        shape: of the activation.
        mask: which entries of the inputs are real; None if all of them are.

    Returns:
        F_l times the message, in the shape of the activation, and zeros where the mask says padding.
    """
    if mask is None and form.is_full and not form.summed and len(shape) == message.ndim:  # the usual case, in short
        return direct_signal(message, stored)
    message = of_point(message, form)
    sent = form.up(direct_signal(message, form.used(stored)), shape)
    return without_padding(sent, mask, message.shape[:-1])


def mask_of(masks: PassMasks | None, point: str, form: Form, message: Float[Tensor, "*batch columns"]) -> Tensor | None:
    """Return which entries of a point's activation are real; None if all of them are.

    Args:
        masks: of the pass.
        point: name of the point.
        form: of its matrix.
        message: what the rule sends, or the error, with all batch axes of the output.
    """
    return None if masks is None else masks.at(point, message.ndim - 1 - form.summed if form.summed else None)


def of_point(message: Float[Tensor, "*batch columns"], form: Form) -> Float[Tensor, "*batch columns"]:
    """Return a message, or an error, for a point: summed over the batch axes of the output that the point lacks."""
    return message.sum(tuple(range(-1 - form.summed, -1))) if form.summed else message
