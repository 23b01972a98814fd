"""What a direct rule sends to its points in one pass, and what it learns from the error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from feedalign.anatomy import PassMasks, real_features, real_rows, without_padding
from feedalign.errors import FeedbackShapeError
from feedalign.feedback import Form
from feedalign.rules.distributed import Processes
from feedalign.rules.learning import keep
from feedalign.rules.matrices import SKETCH

if TYPE_CHECKING:
    from feedalign.rules.direct.rule import DirectRule

ALONE = Processes()


class Sender:
    """The message and the matrices of one forward pass. What the rule learns after it began does not change them.

    Attributes:
        message: from the error at the output to what is sent.
        processes: those that train the model together.
        forms: how the matrices are made of what is held, by point.
        outputs: C.
        masks: which entries of the inputs are real; None if all of them are.
        keys: under which the numbers are held that belong to a point, by point.
        held: these numbers by key, as they were when the pass began.
    """

    def __init__(self, rule: DirectRule, *, learning: bool = True, masks: PassMasks | None = None) -> None:
        self.rule, self.feedback, self.masks = rule, rule.feedback, masks
        self.gathers = learning and rule.gathers
        self.message = rule.message_now()
        self.processes = ALONE
        if rule.learns_feedback or rule.gathers:
            self.processes = Processes.of_this_pass(rule.shards)
        self.forms, self.outputs = self.feedback.forms, self.feedback.places[0].outputs
        self.keys, self.held = self.feedback.keys, dict(self.feedback.named_buffers(recurse=False))
        if rule.learns_feedback:
            self.held = {key: held.clone() for key, held in self.held.items()}

    def signal(self, message: Tensor, point: str, shape: torch.Size) -> Tensor:
        """Return what a message sends to a point whose activation has this shape."""
        mask = None if self.masks is None else self.mask_of(point, message)
        return signal(message, self.held[self.keys[point]], self.forms[point], shape, mask)

    def counted(self, error: Tensor) -> Tensor:
        """Return the error, [*batch, C], with zeros where the mask says padding."""
        mask = None if self.masks is None else self.masks.of_error
        return error if mask is None else error.masked_fill(~real_rows(mask, error.shape[:-1]), 0)

    def mask_of(self, point: str, message: Tensor) -> Tensor | None:
        """Return which entries of a point's activation are real, for a message or an error of all batch axes."""
        return None if self.masks is None else self.masks.at(point, self.forms[point], message)

    def begin(self, error: Tensor) -> Tensor:
        """Return what is sent to the points for an error [*batch, C], and let the rule keep what it gathers.

        What is sent is the message behind the matrix R that all points share, if there is one: [*batch, columns].
        """
        message = self.message(error)
        if SKETCH in self.held:
            message = self.feedback.sketched(message)
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

        An empty batch is no update. Only where several processes train together, the batches of the others still count.
        """
        if not error.numel() and self.processes.group is None:
            return
        form, key = self.forms[point], self.keys[point]
        held = self.feedback.get_buffer(key)
        with torch.no_grad():
            batch = error.shape[: error.ndim - 1 - form.summed]
            # All points that share a matrix start from the same one, in whatever order they learn.
            start = form.used(self.held[key] if form.shared else held)
            changed = start.clone()
            mask = self.mask_of(point, error)
            error = of_point(self.feedback.projected(error), form)
            rows, more = _without_padding(mask, form, hidden, batch)
            self.rule.learn(changed, rows, error, self.processes, **more)
            changed = self.processes.averaged(changed)
            now = form.used(held)
            if form.shared:
                changed = now + (changed - start) * (self._weight(point) / form.used(self._total_weight(key)))
            keep(changed, now)

    def _total_weight(self, key: str) -> Tensor:
        """Return the sum of the weights of the points that use each row of a shared matrix, [rows, 1]."""
        total = torch.zeros_like(self.held[key][:, :1])
        for point, form in self.forms.items():
            if self.keys[point] == key:
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

    `outputs` is how many columns F has; `activation` and `output` are shapes.
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


def with_error(error: Float[Tensor, "*batch outputs"]) -> Tensor:
    """Return which entries of a batch have an error, [*batch].

    An entry whose error is exactly zero, such as padding under `ignore_index`, teaches nothing. It must not change what
    the others are sent either, so rules that count or average leave it out.
    """
    return (error != 0).any(-1)


def of_point(message: Float[Tensor, "*batch columns"], form: Form) -> Float[Tensor, "*batch columns"]:
    """Return a message, or an error, for a point: summed over the batch axes of the output that the point lacks."""
    return message.sum(tuple(range(-1 - form.summed, -1))) if form.summed else message
