"""What one hidden layer is sent."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


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
