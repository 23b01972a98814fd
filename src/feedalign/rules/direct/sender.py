"""What a direct rule sends in one pass, and what it learns from the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from feedalign.anatomy import PassMasks, real_features, real_rows, without_padding
from feedalign.errors import FeedbackShapeError
from feedalign.feedback import Form
from feedalign.rules.direct.signal import mask_of, of_point
from feedalign.rules.distributed import Processes

if TYPE_CHECKING:
    from feedalign.rules.direct.rule import DirectRule


class Sender:
    """The message and the matrices of one forward pass. What the rule learns after it began does not change them.

    Attributes:
        feedback: the recipe and the matrices.
        message: from the error at the output to what is sent.
        processes: those that train the model together.
        forms: how the matrices are made of what is held, by point.
        outputs: C.
        masks: which entries of the inputs are real; None if all of them are.
    """

    def __init__(self, rule: DirectRule, *, learning: bool = True, masks: PassMasks | None = None) -> None:
        self.rule, self.feedback, self.masks = rule, rule.feedback, masks
        self.gathers = learning and rule.gathers
        self.message = rule.message_now()
        in_several = rule.learns_feedback or rule.gathers
        self.processes = Processes.of_this_pass(rule.shards) if in_several else Processes()
        self.forms, self.outputs = self.feedback.forms, self.feedback.places[0].outputs
        kept = {key: self.feedback.get_buffer(key).clone() for key in self._keys()} if rule.learns_feedback else {}
        self.kept: dict[str, Tensor] = kept

    def matrix(self, point: str) -> Tensor:
        """Return the numbers that are held for a point, as they were when the pass began."""
        return self.kept[self.feedback.keys[point]] if self.kept else self.feedback[point]

    def counted(self, error: Tensor) -> Tensor:
        """Return the error, [*batch, C], with zeros where the mask says padding."""
        mask = None if self.masks is None else self.masks.of_error
        return error if mask is None else error.masked_fill(~real_rows(mask, error.shape[:-1]), 0)

    def mask_of(self, point: str, message: Tensor) -> Tensor | None:
        """Return which entries of a point's activation are real, for a message or an error of all batch axes."""
        return mask_of(self.masks, point, self.forms[point], message)

    def begin(self, error: Tensor) -> Tensor:
        """Return what is sent to the points for an error [*batch, C], and let the rule keep what it gathers.

        What is sent is the message behind the matrix R that all points share, if there is one: [*batch, columns].
        """
        message = self.feedback.sketched(self.message(error))
        if self.gathers:
            with torch.no_grad():
                self.rule.gather(error, self.processes)
        return message

    def learn(self, point: str, hidden: Tensor, error: Tensor) -> None:
        """Let the rule change what is held for a point, from the activation there and the error at the output.

        The rule sees the activation and the error as the held numbers do: for F next to what the rule would make of it,
        in least squares, among all matrices of this form. A matrix that several points share changes by the mean of
        what the points make of it, as it was when the pass began, weighted by the squares of their scales, and by
        how many tokens they had when the feedback was drawn.

        A change that is not finite is left out: a training loop that skips such a batch keeps its weights, and so the
        feedback must stay as well. An empty batch is no update either. Only where several processes train together, the
        batches of the others still count.
        """
        if not error.numel() and self.processes.group is None:
            return
        feedback, form, key = self.feedback, self.forms[point], self.feedback.keys[point]
        held = feedback.get_buffer(key)
        with torch.no_grad():
            batch = error.shape[: error.ndim - 1 - form.summed]
            # All points that share a matrix start from the same one, in whatever order they learn.
            start = form.used(self.kept[key] if form.shared else held)
            changed = start.clone()
            mask = self.mask_of(point, error)
            error = of_point(feedback.projected(error), form)
            rows, more = _without_padding(mask, form, hidden, batch)
            self.rule.learn(changed, rows, error, self.processes, **more)
            changed = self.processes.averaged(changed)
            now = form.used(held)
            if form.shared:
                changed = now + (changed - start) * (self._weight(point) / form.used(self._total_weight(key)))
            now.copy_(torch.where(changed.isfinite().all(), changed, now))

    def _keys(self) -> set[str]:
        return set(self.feedback.keys.values())

    def _total_weight(self, key: str) -> Tensor:
        """Return the sum of the weights of the points that use each row of a shared matrix, [rows, 1]."""
        total = torch.zeros_like(self.kept[key][:, :1])
        for point, form in self.forms.items():
            if self.feedback.keys[point] == key:
                total[: form.rows] += self._weight(point)
        return total

    def _weight(self, point: str) -> float:
        """Return how much a point counts for a shared matrix: its squared scale, for each copy of a row in F."""
        form, place = self.forms[point], next(each for each in self.feedback.places if each.name == point)
        return form.scale**2 * (place.features // form.rows)


def _without_padding(
    mask: Tensor | None, form: Form, hidden: Tensor, batch: torch.Size
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an activation as the held numbers see it, the mean over what is no padding, and what counts of it."""
    if mask is None:
        return form.down(hidden, batch), {}
    real = real_features(mask, hidden.shape, batch).expand(hidden.shape)
    share = form.down(real.to(hidden.dtype), batch) * form.scale
    rows = form.down(without_padding(hidden, mask, batch), batch)
    return torch.where(share > 0, rows / share, 0), {"counted": share > 0}


def check_shapes(point: str, form: Form, outputs: int, activation: torch.Size, output: torch.Size) -> None:
    """Raise FeedbackShapeError unless an activation and the output, [*batch, C], fit the matrix of a point.

    Args:
        point: its name.
        form: of its matrix.
        outputs: columns of F.
        activation: shape of the activation.
        output: shape of the output.
    """
    batch = output[: len(output) - 1 - form.summed]
    sample = activation[len(batch) :]
    if activation[: len(batch)] == batch and form.fits(sample) and output[-1] == outputs:
        return
    shape = (form.rows, outputs)
    tokens = len(sample) > 1 and form.is_full
    raise FeedbackShapeError(
        f"the feedback of point {point!r} has shape {shape}, which does not fit the activation {tuple(activation)} and "
        f"the output {tuple(output)}; both must begin with the same batch axes; after a change of the network's shape "
        "wrap it again"
        + ("; for samples of several lengths or sizes give feedback=feedback.Tokenwise() or Channelwise()" * tokens)
    )
