"""The places of one pass at which the error is taken, each tied to what the pass has cut off.

The error is taken at one Tensor, or at several, whose errors side by side are the error. Several Tensors need not be
there at the same time: a model may give one, go on with it, and give the next. So a stand-in [*batch, C] is tied, which
costs no memory, and each of the Tensors hands its error to its own columns of the stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from feedalign.anatomy import ErrorTap, entries_of, is_computed_from, mapped, problems
from feedalign.errors import FeedbackShapeError, OutputError


class Taking:
    """Where the error is taken in one forward pass.

    Args:
        tap: where the error is taken.
        parts: numbers per sample of each Tensor there.
        tie: from a Tensor [*batch, C] to the same Tensor tied to what the pass has cut off.
        watched: whether a backward pass is refused that comes to what the model returned, but to none of `tap.places`.

    Attributes:
        seen: names of the places reached so far.
    """

    def __init__(
        self, tap: ErrorTap, parts: Sequence[int], tie: Callable[[Tensor], Tensor], *, watched: bool = False
    ) -> None:
        self.tap, self.parts, self.tie, self.watched = tap, parts, tie, watched
        self.seen: list[str] = []
        self.joined: Tensor | None = None
        self.token: Tensor | None = None

    def tied(self, i: int, tensor: Tensor) -> Tensor:
        """Return the i-th Tensor at which the error is taken, tied; the Tensor itself if nothing ties it."""
        row = self.tap.row(tensor)
        if len(self.parts) == 1:
            tied = self._watch(row)
            return tensor if tied is row else tied if row is tensor else tied.reshape(tensor.shape)
        if row.shape[-1] != self.parts[i]:
            raise FeedbackShapeError(
                f"the Tensors at which the error is taken have {self.parts} numbers for each entry of the batch, but "
                f"this pass gives {row.shape[-1]} in place of {self.parts[i]}; after a change of the network's shape "
                "wrap it again"
            )
        if self.joined is None:
            stand_in = row.new_zeros(()).expand(*row.shape[:-1], sum(self.parts))
            if not torch.compiler.is_compiling():  # so that a rule learns also where all hidden blocks are frozen
                stand_in.requires_grad_()
            self.joined = self._watch(stand_in)
        if self.joined.shape[:-1] != row.shape[:-1]:
            raise FeedbackShapeError(
                f"the Tensors at which the error is taken have the batch axes {tuple(self.joined.shape[:-1])} and "
                f"{tuple(row.shape[:-1])}, expected the same"
            )
        shared: Tensor = _Share.apply(tensor, self.joined, sum(self.parts[:i]), self.parts[i])  # type: ignore[no-untyped-call]
        return shared

    def _watch(self, rows: Tensor) -> Tensor:
        tied = self.tie(rows)
        if tied is rows or not self.watched:
            return tied
        # Pairs of a Tensor and a token have one origin, so that one backward pass waits for both.
        watched: Tensor
        words = f"error_at {problems.loss_around_the_place(self.tap.places)}"
        watched, self.token = _Watch.apply(tied, words)  # type: ignore[no-untyped-call]
        return watched

    def guarded(self, output: Any) -> Any:
        """Return the output, with every Tensor in it watched to which no place of the error leads.

        Raises:
            OutputError: no place of the error leads to anything in the output.
        """
        token = self.token
        if token is None or not token.requires_grad:
            return output
        passing: dict[int, bool] = {}

        def look(tensor: Tensor) -> Tensor:
            if tensor.requires_grad:
                passing[id(tensor)] = is_computed_from(tensor, token)
            return tensor

        objects = not entries_of(output)
        mapped(output, look, objects=objects)
        if passing and not any(passing.values()):
            raise OutputError(f"error_at {problems.place_leads_nowhere(self.tap.places)}")

        def guard(tensor: Tensor) -> Tensor:
            if passing.get(id(tensor), True):
                return tensor
            beside: Tensor = _Beside.apply(tensor, token)  # type: ignore[no-untyped-call]
            return beside

        return mapped(output, guard, objects=objects)


class _Share(torch.autograd.Function):
    """The identity on one of several Tensors; in the backward pass, its error also in its columns of the whole."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, joined: Tensor, start: int, width: int) -> Tensor:
        ctx.batch, ctx.start, ctx.width = joined.shape[:-1], start, width
        ctx.after = joined.shape[-1] - start - width
        return tensor.detach()

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        row = error.reshape(*ctx.batch, ctx.width)
        return error, functional.pad(row, (ctx.start, ctx.after)), None, None


class _Watch(torch.autograd.Function):
    """The identity on where the error is taken, and an empty token; a backward pass by way of the token alone fails."""

    @staticmethod
    def forward(ctx: Any, tied: Tensor, words: str) -> tuple[Tensor, Tensor]:
        ctx.words = words
        ctx.set_materialize_grads(False)
        return tied.detach(), tied.new_empty(0)

    @staticmethod
    def backward(ctx: Any, error: Tensor | None, _token: Tensor | None) -> tuple[Tensor | None, ...]:
        if error is None:
            raise OutputError(ctx.words)
        return error, None


class _Beside(torch.autograd.Function):
    """The identity on a Tensor that the model returns, whose backward pass also comes to the token of `_Watch`."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor, _token: Tensor) -> Tensor:
        return tensor.detach()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient, gradient.new_empty(0)
