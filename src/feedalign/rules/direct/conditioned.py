"""Conditioned feedback without being told the outputs' covariance: the errors seen in training tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from feedalign.anatomy import Entries, Mask
from feedalign.checks import number_between, whole_number
from feedalign.errors import PointsError
from feedalign.feedback import Feedback
from feedalign.rules.direct.rule import DirectRule
from feedalign.rules.direct.sender import with_error
from feedalign.rules.distributed import Processes


class ConditionedDFA(DirectRule):
    r"""Direct feedback alignment of a conditioned error: hidden layers are sent F_l P e, the readout keeps e.

    .. math:: P = c \, (S + \tfrac{C}{N} I)^{-1/2}, \quad S ∝ \langle e e^T \rangle, \quad
        c^2 = \mathrm{tr}\, S \,/\, \mathrm{tr}\big(S (S + \tfrac{C}{N} I)^{-1}\big)

    In deep linear networks the first steps from zero make the second alignment matrix ∝ Σ_yx Σ_xy, which is badly
    conditioned where outputs are correlated or differ in size; P = (Σ_yx Σ_xy)^(−½) makes it ∝ I
    (`theory.linear.conditioner`, which must be told). With isotropic inputs Σ_yx Σ_xy is the second moment of the
    targets, which are the first errors up to their sign; later, where the error is a linear map E of the input, that of
    the errors is E Eᵀ, and P E has orthonormal rows again. So the running average of e eᵀ stands in for it.

    * *Average.* Every backward pass counts by its number of errors, and the passes before it are multiplied by `decay`.
      Each is divided by its mean square first, so that the loss's scale, a `GradScaler`'s factor and a loss that falls
      do not matter (S has a mean eigenvalue of 1). A pass with errors all zero, or not all finite, is left out.
    * *Regularised.* Beside the N errors it was averaged over, S is joined by C white ones, so that directions with next
      to no error, such as (1, ..., 1) under a softmax, are not blown up, and P is near I as long as little is known.
    * *Norm-preserving.* c keeps the mean square length of P e at that of e, over the errors averaged, so that a
      learning rate that suits DFA keeps its meaning. Equal and uncorrelated outputs give P = I: DFA.

    A backward pass changes P for later passes, never for itself. P is renewed after the first backward pass, and then
    once in `every` backward passes. With gradients accumulated over k backward passes, give a multiple of k. Measuring
    (`gradient_alignment`, `AlignmentMonitor`, `alignment.descent`) does not count. Average and P are buffers, saved in
    `state_dict`. Under `DistributedDataParallel` the errors of all processes count; of an ensemble, those of all
    networks, which share P. A compiled model computes P in every pass, and keeps it where a renewal is due.

    The other arguments are those of `DirectRule`.

    Args:
        every: backward passes from one renewal of P to the next.
        decay: in [0, 1); the average reaches back over some 1/(1 − decay) passes.

    Raises:
        ArgumentError: `every` below 1, or `decay` outside [0, 1).
    Source: ours; follows from Refinetti et al. (2021), section 3.
    """

    gathers: ClassVar[bool] = True

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
        every: int = 10,
        decay: float = 0.99,
    ) -> None:
        every = whole_number("every", every, at_least=1, advice="give a number of backward passes")
        decay = number_between("decay", decay, 0, 1, ends="[)", advice="0.99 averages over about 100 backward passes")
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
        self.every, self.decay = every, decay
        self.gathered = Gathered()
        if self.drawn:
            self.gathered.begin(self.blocks[-1].features, self.feedback[self.points[0]].device)

    @property
    def conditioner(self) -> Tensor:
        """P as it is now, [C, C].

        Raises:
            PointsError: no forward pass has told C yet.
        """
        if not self.gathered.known:
            raise PointsError(
                "the conditioner is not known yet, since the number of outputs is not; give example_input=, or run one "
                "forward pass"
            )
        return self.gathered.conditioner

    def message(self, error: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return P e, with the loss's reduction factor; P is symmetric."""
        return error @ self.gathered.conditioner.to(error.dtype)

    def message_now(self) -> Callable[[Tensor], Tensor]:
        """Return `message` with P as it is now."""
        self.gathered.widen()
        P = self.gathered.conditioner.clone()
        return lambda error: error @ P.to(error.dtype)

    def gather(self, error: Float[Tensor, "*batch outputs"], processes: Processes) -> None:
        """Take the errors of a backward pass into the average, and renew P if that is due."""
        moment, conditioner, passes = self.gathered.moment, self.gathered.conditioner, self.gathered.passes
        errors = error.flatten(0, -2).double()  # squares of small ones are below single precision
        entries = processes.summed(with_error(errors).sum().to(errors.dtype))
        fresh = processes.summed(errors.T @ errors)
        # Not trace(), of which the compiler's own code warns.
        square = (fresh * torch.eye(len(fresh), device=fresh.device)).sum() / len(fresh)
        known = torch.isfinite(square) & (square > 0)
        moment.copy_(torch.where(known, self.decay * moment + fresh * (entries / square), moment))  # N S
        due = passes % self.every == 0
        if torch.compiler.is_compiling() or due:
            conditioner.copy_(torch.where(due, _inverse_root(moment.double()), conditioner))
        passes.add_(1)

    def reset_feedback(self) -> None:
        """Draw the feedback anew, and forget the average of the errors: P is the identity again."""
        super().reset_feedback()
        self.gathered.begin(len(self.gathered.moment), self.gathered.moment.device)

    def draw(self, found: Any) -> None:
        """Draw the matrix of every point, and make room for the average of the errors."""
        super().draw(found)
        if hasattr(self, "gathered") and not self.gathered.known:  # the constructor may draw before it comes so far
            self.gathered.begin(self.blocks[-1].features, self.feedback[self.points[0]].device)


class Gathered(nn.Module):
    """What the rule keeps of the errors, as buffers: the average N S, P, and the number of backward passes."""

    moment: Tensor
    conditioner: Tensor
    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    @property
    def known(self) -> bool:
        """Whether the buffers are there, begun or loaded from a saved state."""
        return hasattr(self, "passes")

    def widen(self) -> None:
        """Take back the double precision after the model, and with it the buffers, was cast to another one."""
        wide = _wide(self.moment.device)
        if self.moment.dtype != wide:
            self.moment, self.conditioner = self.moment.to(wide), self.conditioner.to(wide)

    def begin(self, outputs: int, device: torch.device) -> None:
        """Begin with P = I, [outputs, outputs].

        Average and P are in double precision, whatever the model's: in half precision the average of many errors would
        not stay positive.
        """
        wide = _wide(device)
        self.register_buffer("moment", torch.zeros(outputs, outputs, dtype=wide, device=device))
        self.register_buffer("conditioner", torch.eye(outputs, dtype=wide, device=device))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64, device=device))


def _wide(device: torch.device) -> torch.dtype:
    """Return the widest precision that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def _make_room(gathered: Gathered, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded, make buffers of the saved shape where the number of outputs is not known yet."""
    if not gathered.known and f"{prefix}moment" in state_dict:
        moment = state_dict[f"{prefix}moment"]
        gathered.begin(len(moment), moment.device)


def _inverse_root(moment: Tensor) -> Tensor:
    """Return P from N S; the identity where nothing was averaged yet."""
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0)  # rounding
    shrunk = values + len(moment)
    norm = (values.sum() / (values / shrunk).sum()).sqrt()
    norm = torch.where(norm.isnan(), len(moment) ** 0.5, norm)
    root: Tensor = norm * (vectors / shrunk.sqrt()) @ vectors.T
    return root
