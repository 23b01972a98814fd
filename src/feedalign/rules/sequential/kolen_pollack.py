"""Kolen–Pollack learning of the backward weights of feedback alignment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from feedalign.anatomy import Entries, Mask
from feedalign.feedback import Feedback
from feedalign.rules.learning import check_rates
from feedalign.rules.sequential.rule import SequentialRule


class KolenPollack(SequentialRule):
    r"""Feedback alignment whose B_l gets the same update as the transposed weight, and the same decay.

    .. math:: B_l ← (1 - η λ) B_l - η \, (∂loss/∂W_l)^T

    with the gradient the rule itself sends. Where the optimizer of W_l is plain SGD with the same η = `lr` and
    λ = `weight_decay`, the difference B_l − W_lᵀ shrinks by 1 − η λ each step, and the rule becomes backprop. Another
    optimizer moves W_l otherwise, and then B_l only follows roughly.

    The update takes place in the backward pass, in buffers, without gradients. *Every* backward pass makes an update:
    with gradients accumulated over k backward passes, B_l is updated, and decays, k times for each step of the
    optimizer. A layer that runs several times in a pass makes an update each time. A `GradScaler`'s factor would be in
    the update: use bfloat16. Under `DistributedDataParallel` B_l learns from the batches of all processes.

    The other arguments are those of `SequentialRule`.

    Args:
        feedback: recipe of the initial B_l.
        lr: η, that of the optimizer.
        weight_decay: λ, as in `torch.optim.SGD`, so the decay of a step is η λ.

    Raises:
        ArgumentError: `lr` or `weight_decay` below 0, or 1 < η λ.
    Source: Akrout, Wilson, Humphreys, Lillicrap and Tweed (2019), after Kolen and Pollack (1994).
    """

    learns_feedback: ClassVar[bool] = True
    real_weights: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        points: str | Iterable[str] = "auto",
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        example_input: Any = None,
        output: Entries = None,
        batch_dims: int | None = None,
        error_at: str | Iterable[str] | None = None,
        mask: Mask = None,
        lr: float = 0.1,
        weight_decay: float = 1e-2,
    ) -> None:
        lr, weight_decay = check_rates(lr, weight_decay)
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
        )
        self.lr, self.weight_decay = lr, weight_decay

    def learn(self, matrix: Tensor, gradient: Tensor) -> None:
        """Update B_l as SGD updates W_l."""
        matrix.mul_(1 - self.lr * self.weight_decay).sub_(gradient, alpha=self.lr)
