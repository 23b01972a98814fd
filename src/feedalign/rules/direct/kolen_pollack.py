"""Direct feedback that learns, by a local rule and without looking at the forward weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from feedalign.anatomy import Entries, Mask
from feedalign.checks import flag
from feedalign.feedback import Feedback
from feedalign.rules.direct.rule import DirectRule
from feedalign.rules.direct.sender import with_error
from feedalign.rules.distributed import Processes
from feedalign.rules.learning import check_rates


class DirectKolenPollack(DirectRule):
    r"""Direct feedback alignment whose F_l learns what a readout of its layer would, and decays.

    .. math:: F_l ← (1 - η λ) F_l - η \sum_b (h_{lb} - \bar h_l) e_b^T

    Of the last hidden layer that is the Kolen–Pollack update of the transposed readout; below it, F_l follows a
    readout that the layer does not have. The error sent in a step goes through F_l as it was before the step.

    The update takes place in the backward pass, in buffers, without gradients. *Every* backward pass makes an update:
    with gradients accumulated over k backward passes, F_l is updated, and decays, k times for each step of the
    optimizer. A `GradScaler`'s factor would be in the update: use bfloat16. Activations are kept until the backward
    pass. Under `DistributedDataParallel` F_l learns from the batches of all processes.

    The other arguments are those of `DirectRule`.

    Args:
        feedback: recipe of the initial F_l.
        error_at: see `DirectRule`. The module must not be run in an activation checkpoint.
        lr: η; e has the loss's reduction factor, so η belongs to the loss as an optimizer's does.
        weight_decay: λ, as in `torch.optim.SGD`, so the decay of a step is η λ: 10⁻³ with both defaults.
        centred: whether the mean over the batch entries, h̄_l, is taken off. Then F_l is not pushed along the mean
            activation, and a batch of one teaches it nothing. The published rule does not centre.

    Raises:
        ArgumentError: `lr` or `weight_decay` below 0, 1 < η λ, or `centred` is no bool.
    Source: Webster, Choi and Ahn (2020), "Learning the connections in direct feedback alignment", `centred=False`.
    """

    learns_feedback: ClassVar[bool] = True

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
        recompute: bool = False,
        lr: float = 0.1,
        weight_decay: float = 1e-2,
        centred: bool = True,
    ) -> None:
        lr, weight_decay = check_rates(lr, weight_decay)
        centred = flag("centred", centred)
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
        self.lr, self.weight_decay, self.centred = lr, weight_decay, centred

    def learn(
        self,
        matrix: Float[Tensor, "features outputs"],
        hidden: Float[Tensor, "*batch features"],
        error: Float[Tensor, "*batch outputs"],
        processes: Processes,
        counted: Bool[Tensor, "*batch features"] | None = None,
    ) -> None:
        """Update F_l as SGD would a readout of the layer."""
        h = hidden.reshape(-1, hidden.shape[-1]).to(matrix.dtype)
        e = error.reshape(-1, error.shape[-1]).to(matrix.dtype)
        if self.centred:
            counts = with_error(e).to(h.dtype)
            if counted is None:
                entries = processes.summed(counts.sum()).clamp(min=1)
                h = h - processes.summed(counts @ h) / entries
            else:  # padding is part of no mean, and stays zero
                real = counted.reshape(h.shape).to(h.dtype)
                entries = processes.summed(counts @ real).clamp(min=1)
                h = (h - processes.summed(counts @ h) / entries) * real
        matrix.mul_(1 - self.lr * self.weight_decay).addmm_(h.T, e, alpha=-self.lr)
