"""What a direct rule sends to the hidden layers."""

from __future__ import annotations

from collections.abc import Sequence

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
    return direct_signals(error, [feedback])[0]


def direct_signals(
    error: Float[Tensor, "*batch outputs"], matrices: Sequence[Float[Tensor, "_ outputs"]]
) -> list[Float[Tensor, "*batch _"]]:
    """Return the `direct_signal` of every hidden layer; the matrices are of one precision.

    In one call, since in small networks each layer's would count.
    """
    if matrices and error.dtype != matrices[0].dtype:
        error = error.to(matrices[0].dtype)
    if error.ndim == 2:
        return [error.mm(matrix.t()) for matrix in matrices]
    return [functional.linear(error, matrix) for matrix in matrices]
