"""What a direct rule sends in one pass, and what it learns from the error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from feedalign.anatomy import real_features, real_rows, without_padding
from feedalign.errors import FeedbackShapeError
from feedalign.rules.direct.signal import direct_signal
from feedalign.rules.distributed import Processes

if TYPE_CHECKING:
    from feedalign.rules.direct.rule import DirectRule


class Sender:
    """The message and the matrices of one forward pass. What the rule learns after it began does not change them.

    Attributes:
        message: from the error at the output to what is sent.
        processes: those that train the model together.
        mask: which entries of the inputs are real; None if all of them are.
    """

    def __init__(self, rule: DirectRule, *, learning: bool = True, mask: Tensor | None = None) -> None:
        self.rule, self.mask = rule, mask
        self.gathers = learning and rule.gathers
        self.message = rule.message_now()
        in_several = rule.learns_feedback or rule.gathers
        self.processes = Processes.of_this_pass(rule.shards) if in_several else Processes()
        self.kept = {name: F.clone() for name, F in rule.feedback.by_point().items()} if rule.learns_feedback else {}

    def matrix(self, point: str) -> Tensor:
        """Return F of a point, [features, C], as it was when the pass began."""
        return self.kept[point] if self.kept else self.rule.feedback[point]

    def counted(self, error: Tensor) -> Tensor:
        """Return the error, [*batch, C], with zeros where the mask says padding."""
        return error if self.mask is None else error.masked_fill(~real_rows(self.mask, error.shape[:-1]), 0)

    def begin(self, error: Tensor) -> Tensor:
        """Return the message for an error at the output, both [*batch, C], and let the rule keep what it gathers."""
        message = self.message(error)
        if self.gathers:
            with torch.no_grad():
                self.rule.gather(error, self.processes)
        return message

    def learn(self, point: str, hidden: Tensor, error: Tensor) -> None:
        """Let the rule change the matrix of a point, from the activation there and the error at the output.

        A change that is not finite is left out: a training loop that skips such a batch keeps its weights, and so the
        feedback must stay as well. An empty batch is no update either. Only where several processes train together, the
        batches of the others still count.
        """
        if not error.numel() and self.processes.group is None:
            return
        matrix, batch = self.rule.feedback[point], error.shape[:-1]
        with torch.no_grad():
            changed = matrix.clone()
            more: dict[str, Tensor] = {}
            if self.mask is not None:
                real = real_features(self.mask, hidden.shape, batch).expand(hidden.shape)
                more["counted"] = real.reshape(*batch, len(matrix))
                hidden = without_padding(hidden, self.mask, batch)
            self.rule.learn(changed, hidden.reshape(*batch, len(matrix)), error, self.processes, **more)
            changed = self.processes.averaged(changed)
            matrix.copy_(torch.where(changed.isfinite().all(), changed, matrix))


def signal(message: Tensor, matrix: Tensor, shape: torch.Size, mask: Tensor | None) -> Tensor:
    """Return the message through one matrix, in the shape of an activation, and zeros where the mask says padding."""
    sent = direct_signal(message, matrix)
    sent = sent if len(shape) == sent.ndim else sent.reshape(shape)
    return without_padding(sent, mask, message.shape[:-1])


def check_shapes(point: str, matrix: Tensor, activation: torch.Size, output: torch.Size) -> None:
    """Raise FeedbackShapeError unless an activation and the output, [*batch, C], fit the matrix of a point."""
    *batch, outputs = output
    features, expected = matrix.shape
    fits = activation.numel() == math.prod(batch) * features and outputs == expected
    if not fits or activation[: len(batch)] != output[:-1]:
        raise FeedbackShapeError(
            f"the feedback of point {point!r} has shape {tuple(matrix.shape)}, which does not fit the activation "
            f"{tuple(activation)} and the output {tuple(output)}; both must begin with the same batch axes; after a "
            "change of the network's shape wrap it again"
        )
