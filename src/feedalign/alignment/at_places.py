"""True and sent derivatives at the points, or at their pre-activations, sample by sample.

The graph of the forward pass is cut at the points, so that autograd takes the true derivative from each point to the
one below it, and passes a pre-activation on its way. The blocks are then separate graphs, in which one call takes every
signal from its point down to its pre-activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from feedalign.alignment.inner_products import PIECE, Products, inner_products
from feedalign.alignment.true_pass import Batch, backward, true_pass
from feedalign.anatomy import PassMasks, activation_of, exchange, mapped, real_rows, tensors_in, without_padding
from feedalign.errors import OutputError
from feedalign.rules import DirectRule, mask_of, signal

Pair = tuple[str, Tensor | None, Tensor | None]


@dataclass(eq=False)
class PointRun:
    """One run of a point.

    Attributes:
        point: its name.
        shape: of the activation.
        dtype: of the activation.
        place: where derivatives are compared: at the pre-activation, or at the activation itself.
        given: where everything that the point's module returned left its operations, the activation first.
        taken: where the same Tensors go on, behind the cut.
        true: derivatives of the loss with respect to the same Tensors, as far as they are known.
    """

    point: str
    shape: torch.Size
    dtype: torch.dtype
    place: GradientEdge
    given: list[GradientEdge]
    taken: list[GradientEdge]
    true: list[Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        self.true = [None] * len(self.given)


class Runs:
    """The runs of the points in one forward pass, in order.

    Args:
        points: names of the points.
        before: names of the modules whose outputs are the pre-activations; none to compare at the points.
    """

    def __init__(self, points: Iterable[str], before: Iterable[str]) -> None:
        self.points, self.before = set(points), set(before)
        self.runs: list[PointRun] = []
        self.preactivation: GradientEdge | None = None  # the last one seen

    def see(self, name: str, output: Any) -> Any:
        """Mark a pre-activation, or cut the graph at a point; called when the module of this name has run."""
        activation = activation_of(name, output)
        here = _recorded(activation)
        given = get_gradient_edge(here)
        if name in self.before:
            self.preactivation = given
        if name not in self.points:
            # A copy goes on, since what follows may change the Tensor in place.
            return exchange(output, activation, here.clone())
        place = self.preactivation if self.before else given
        assert place is not None  # the module that gives the pre-activation runs before the point, or is the point
        others = [] if output is activation else tensors_in(output)
        cut = [activation, *(one for one in others if one is not activation and one.is_floating_point())]
        behind = {id(one): one.detach().requires_grad_().clone() for one in cut}
        self.runs.append(
            PointRun(
                name,
                activation.shape,
                activation.dtype,
                place,
                [given, *(get_gradient_edge(_recorded(one)) for one in cut[1:])],
                [get_gradient_edge(one) for one in behind.values()],
            )
        )
        return mapped(output, lambda one: behind.get(id(one), one))

    def pairs(
        self, net: DirectRule, entries: Sequence[Tensor], loss: Tensor, masks: PassMasks | None
    ) -> Iterator[Pair]:
        """Yield the true and the sent derivative at the place of every run, from the last run to the first."""
        found = self._true_derivatives([(loss, None)], list(entries), self.runs)
        if all(e is None for e in found):
            raise OutputError(
                "the loss is not computed from the place where the error is taken, so there is no error to measure; "
                "compute the loss outside of the model, or name with error_at= the module whose output the loss uses"
            )
        errors = [torch.zeros_like(entry) if e is None else e for entry, e in zip(entries, found, strict=True)]
        error = net.error_tap.rows(errors)
        if masks is not None and masks.of_error is not None:
            error = error.masked_fill(~real_rows(masks.of_error, error.shape[:-1]), 0)
        message = net.feedback.sketched(net.message(error))
        closed, waiting = True, []
        for i, run in reversed(list(enumerate(self.runs))):
            # What the loss does not use, such as a last hidden state, has no derivative.
            ends = [(edge, one) for edge, one in zip(run.given, run.true, strict=True) if one is not None]
            below = self.runs[:i]
            true, *past = self._true_derivatives(ends, [run.place, *(lower.place for lower in below)], below)
            run.true = []
            closed = closed and all(one is None for one in past)
            form = net.feedback.forms[run.point]
            mask = mask_of(masks, run.point, form, message)
            sent_there = signal(message, net.feedback[run.point], form, run.shape, mask).to(run.dtype)
            if sent_there.numel() > PIECE:
                (sent,) = backward([(run.given[0], sent_there)], [run.place])
                yield run.point, true, sent
            else:
                waiting.append((run, true, sent_there))
        # Small signals share one call, unless a path leads past a point from one block into another.
        for together in [waiting] if closed else [[one] for one in waiting]:
            found = backward(
                [(run.given[0], sent_there) for run, _, sent_there in together], [run.place for run, *_ in together]
            )
            yield from ((run.point, true, sent) for (run, true, _), sent in zip(together, found, strict=True))

    def _true_derivatives(
        self, ends: Sequence[tuple[Tensor | GradientEdge, Tensor | None]], targets: Sequence[Any], below: list[PointRun]
    ) -> list[Tensor | None]:
        """Return the derivatives of the ends, weighted, with respect to the targets; add those of the runs below."""
        found = backward(ends, [*targets, *(edge for run in below for edge in run.taken)])
        rest = iter(found[len(targets) :])
        for run in below:
            run.true = [_sum(known, next(rest)) for known in run.true]
        return found[: len(targets)]


def products_at_places(net: DirectRule, batch: Batch, *, preactivations: bool) -> Products:
    """Return the inner products of true and sent derivative at the places, [3, points + 1, *batch].

    Both go from the point to the place by way of the point alone. A point that runs several times contributes the
    features of every run, one that did not run zero.

    Args:
        net: a wrapped model.
        batch: what to run it on.
        preactivations: compare at the pre-activations, instead of at the points.
    """
    before = {block.preactivation for block in net.blocks[:-1]} if preactivations else set()
    runs = Runs(net.points, before)
    entries, loss = true_pass(net, batch, runs.see, before.difference(net.points))
    axes = net.error_tap.batch_shape(entries[0])
    # An encoder has the samples in common with the output, and not the tokens.
    axes = axes[: len(axes) - max(form.summed for form in net.feedback.forms.values())]
    pairs = runs.pairs(net, entries, loss, batch.masks)
    if batch.masks is None:
        return inner_products(pairs, net.points, axes)

    def counted(name: str, derivative: Tensor | None) -> Tensor | None:
        """Return a derivative with zeros at padding, so that padding has no angle and no length."""
        if derivative is None:
            return None
        form, error = net.feedback.forms[name], net.error_tap.rows(entries)
        return without_padding(derivative, mask_of(batch.masks, name, form, error), axes)

    return inner_products(((name, counted(name, a), counted(name, b)) for name, a, b in pairs), net.points, axes)


def _recorded(tensor: Tensor) -> Tensor:
    """Return a Tensor with a gradient; above frozen blocks alone an activation has none."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _sum(known: Tensor | None, more: Tensor | None) -> Tensor | None:
    return known if more is None else more if known is None else known + more
