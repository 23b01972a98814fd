"""Direct feedback alignment, and the two rules that keep less of the error: its sign, or the target alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from feedalign.anatomy import Entries, Mask
from feedalign.checks import one_of
from feedalign.feedback import Feedback
from feedalign.rules.direct.rule import DirectRule
from feedalign.rules.direct.sender import with_error

Reduction = Literal["mean", "sum"]


class DFA(DirectRule):
    r"""Direct feedback alignment: δ_l = (F_l e) ⊙ g'(a_l) for hidden layers, the true gradient for the readout.

    >>> import torch, feedalign as fa
    >>> net = fa.DFA(fa.networks.MLP([4, 8, 3]), seed=0)
    >>> loss = torch.nn.functional.cross_entropy(net(torch.ones(5, 4)), torch.tensor([0, 1, 2, 0, 1]))
    >>> loss.backward()

    Because e = ∂loss/∂output carries the loss's reduction factor, hidden layers and readout share one scale of update.
    The batch axes are all axes of the output but its last one; the error of each entry of the batch goes to the
    features of that entry.

    With `error="sign"` hidden layers are sent F_l sign(e), the readout keeps e. A sign has lost the
    loss's reduction factor, so `reduction` puts one in; it has also lost the factor of a `GradScaler`, so in mixed
    precision use bfloat16, which needs no scaler.

    The other arguments are those of `DirectRule`.

    Args:
        error: "true" sends e, "sign" its sign.
        reduction: with `error="sign"`, the loss's: "mean" divides the signs by the number of batch entries (the
            product of all batch axes), "sum" by nothing. Not used with `error="true"`.

    Raises:
        ArgumentError: unknown `error` or `reduction`.
    Source: Nøkland (2016); for the sign, Frenkel, Lefebvre and Bol (2021), where it is called sDFA.
    """

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        error: Literal["true", "sign"] = "true",
        reduction: Reduction = "mean",
        output: Entries = None,
        batch_dims: int | None = None,
        error_at: str | Iterable[str] | None = None,
        mask: Mask = None,
        recompute: bool = False,
    ) -> None:
        one_of("error", error, ("true", "sign"))
        one_of("reduction", reduction, get_args(Reduction))
        super().__init__(
            model,
            points,
            feedback,
            seed,
            example_input=example_input,
            output=output,
            batch_dims=batch_dims,
            error_at=error_at,
            mask=mask,
            recompute=recompute,
        )
        self.error, self.reduction = error, reduction

    def message(self, error: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return e, or its sign over the batch size."""
        return error if self.error == "true" else _reduced(error.sign(), error, self.reduction)


class DRTP(DirectRule):
    r"""Direct random target projection: hidden layers are sent the target instead of the error.

    .. math:: δ_l = -(F_l y^*) ⊙ g'(a_l), \quad y^*_c = 1\{e_c < 0\}

    The readout keeps the true e. The published rule projects one-hot targets, known before the output is. Here the
    target is read off the error, so that nothing but the loss need know it: with one-hot targets and outputs strictly
    between 0 and 1 (cross-entropy of a softmax, binary cross-entropy or squared error of a sigmoid) e is below zero
    at the target and nowhere else. That reading does *not* hold for regression, label smoothing, soft or multiplied
    targets, nor where weights of the loss or masks set e to zero: there this rule is a one-sided sign of the error. An
    entry whose error has underflowed to exactly 0 sends nothing.

    The other arguments are those of `DirectRule`.

    Args:
        reduction: of the loss, whose factor the target does not carry: "mean" divides by the number of batch
            entries (the product of all batch axes), "sum" by nothing. Nor does it carry the factor of a `GradScaler`.

    Raises:
        ArgumentError: unknown `reduction`.
    Source: Frenkel, Lefebvre and Bol (2021), "Learning without feedback: fixed random learning signals allow for
    feedforward training of deep neural networks".
    """

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        reduction: Reduction = "mean",
        output: Entries = None,
        batch_dims: int | None = None,
        error_at: str | Iterable[str] | None = None,
        mask: Mask = None,
        recompute: bool = False,
    ) -> None:
        one_of("reduction", reduction, get_args(Reduction))
        super().__init__(
            model,
            points,
            feedback,
            seed,
            example_input=example_input,
            output=output,
            batch_dims=batch_dims,
            error_at=error_at,
            mask=mask,
            recompute=recompute,
        )
        self.reduction = reduction

    def message(self, error: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return minus the target over the batch size."""
        return -_reduced((error < 0).to(error.dtype), error, self.reduction)


def _reduced(message: Tensor, error: Tensor, reduction: str) -> Tensor:
    """Put the loss's reduction factor into a message that has lost it. Entries without an error do not count."""
    return message / with_error(error).sum().clamp(min=1) if reduction == "mean" else message
