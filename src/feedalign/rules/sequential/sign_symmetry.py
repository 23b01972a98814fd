"""Sign symmetry: backward weights with the forward weights' signs and magnitudes of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from feedalign.anatomy import Entries, Mask
from feedalign.checks import one_of, shown
from feedalign.errors import ArgumentError
from feedalign.feedback import Feedback, Gaussian, Magnitudes, Rademacher, check_recipe, draw_at
from feedalign.rules.sequential.rule import SequentialRule
from feedalign.streams import torch_generator


class SignSymmetry(SequentialRule):
    r"""Backward weights sign(W_l) ∘ M_l, with M_l of one size (uSF), drawn each batch (brSF) or fixed (frSF).

    .. math:: B_l = \mathrm{sign}(W_l)^T ∘ M_l, \quad M_l = |\text{draw of the recipe}|

    The signs are those at the forward pass. `feedback_matrices` holds M_l, [fan-in, outputs], non-negative.

    The other arguments are those of `SequentialRule`.

    Args:
        feedback: recipe whose absolute value is M_l; unless given, Gaussian of standard deviation 1/√fan-in, and for
            "uniform" every entry 1/√fan-in.
        seed: see `SequentialRule`; of the magnitudes of each batch too. Their generator is the rule's own and is saved
            in `state_dict`, so that a resumed run draws what an unbroken one would.
        magnitude: "uniform", "batchwise" or "fixed".

    Raises:
        ArgumentError: unknown `magnitude`, or a recipe other than Rademacher with "uniform".
    Source: Liao, Leibo and Poggio (2016); Moskovitz, Litwin-Kumar and Abbott (2018).
    """

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
        magnitude: Literal["uniform", "batchwise", "fixed"] = "uniform",
    ) -> None:
        one_of("magnitude", magnitude, ("uniform", "batchwise", "fixed"))
        if magnitude == "uniform":
            feedback = Rademacher() if feedback is None else feedback
            if not isinstance(feedback, Rademacher):
                raise ArgumentError(
                    f"feedback={shown(feedback)} has entries of several sizes, and magnitude='uniform' means one; give "
                    "Rademacher(scale), or magnitude='fixed'"
                )
        check_recipe(Gaussian() if feedback is None else feedback)
        recipe = Magnitudes(Gaussian() if feedback is None else feedback)
        super().__init__(
            model,
            points,
            recipe,
            seed,
            example_input=example_input,
            output=output,
            batch_dims=batch_dims,
            error_at=error_at,
            mask=mask,
        )
        self.magnitude = magnitude
        self.of_batches = torch_generator(self.feedback.seed, "magnitudes")

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on the rule's graph, with this batch's magnitudes, and return its output."""
        if self.magnitude == "batchwise":
            for place in self.places:
                self.feedback[place.name].copy_(draw_at(self.feedback.recipe, place, self.of_batches))
        return super().run(args, kwargs)

    def backward_weight(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """Return the weight's signs with the drawn magnitudes."""
        return weight.sign() * matrix

    def reset_feedback(self) -> None:
        """Draw the magnitudes anew, and begin again with those of the batches."""
        super().reset_feedback()
        self.of_batches = torch_generator(self.feedback.seed, "magnitudes")

    def get_extra_state(self) -> Tensor:
        """Return the state of the batches' generator, for `state_dict`."""
        return self.of_batches.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Take the state of the batches' generator from a `state_dict`."""
        self.of_batches.set_state(state.cpu())
