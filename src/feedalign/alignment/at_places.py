"""True and sent derivatives at the points, or at their pre-activations, sample by sample.

One backward pass on the model's own graph gives the true derivative at every point, and the error. From each point
autograd then takes both derivatives, the true one and what the rule sends, down to the pre-activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from feedalign.alignment.inner_products import Products, inner_products
from feedalign.alignment.true_pass import Batch, backward, true_pass
from feedalign.anatomy import (
    PassMasks,
    activation_of,
    exchange,
    mapped,
    real_rows,
    tensors_in,
    without_padding,
)
from feedalign.errors import OutputError
from feedalign.rules import DirectRule, signal

Pair = tuple[str, Tensor | None, Tensor | None]


class PointRun(NamedTuple):
    """One run of a point."""

    point: str  # its name
    shape: torch.Size  # of the activation, like the dtype
    dtype: torch.dtype
    # Where derivatives are compared: at the pre-activation, or at the activation itself; None where no pre-activation
    # has run since the last point.
    place: GradientEdge | None
    given: list[GradientEdge]  # where all that the point's module returned left its operations, the activation first
    taken: list[GradientEdge]  # where copies of the same Tensors go on

    def at_place(self, derivatives: Sequence[Tensor | None]) -> Tensor | None:
        """Return the derivative at the place from those of what the module returned, the activation first.

        None stands for a derivative of zero, here and there.
        """
        if self.place is self.given[0] and len(derivatives) == 1:
            return derivatives[0]
        ends = [(edge, one) for edge, one in zip(self.given, derivatives, strict=False) if one is not None]
        return backward(ends, [self.place])[0] if self.place is not None else None


class Runs:
    """The runs of the points in one forward pass, in order.

    Args:
        points: names of the points.
        before: names of the modules whose outputs are the pre-activations; none to compare at the points.
    """

    def __init__(self, points: Iterable[str], before: Iterable[str]) -> None:
        self.points, self.before = set(points), set(before)
        self.runs: list[PointRun] = []
        self.preactivation: GradientEdge | None = None  # the last one since the last point

    def see(self, name: str, output: Any) -> Any:
        """Note where a pre-activation or a point lies in the graph; called when the module of this name has run.

        A copy goes on, since what follows may change the Tensor in place. Of a tuple, a copy of each Tensor goes on, so
        that what follows one of them is told from what follows another.
        """
        activation = activation_of(name, output)
        here = _recorded(activation)
        given = get_gradient_edge(here)
        if name in self.before:
            self.preactivation = given
        copy = here.clone()
        if name not in self.points:
            return copy if output is activation else exchange(output, activation, copy)
        place, self.preactivation = (self.preactivation if self.before else given), None
        run = PointRun(name, here.shape, here.dtype, place, [given], [get_gradient_edge(copy)])
        self.runs.append(run)
        if output is activation:
            return copy
        copies = {id(activation): copy}
        for other in tensors_in(output):
            if id(other) not in copies and other.is_floating_point():
                recorded = _recorded(other)
                copies[id(other)] = recorded.clone()
                run.given.append(get_gradient_edge(recorded))
                run.taken.append(get_gradient_edge(copies[id(other)]))
        return mapped(output, lambda one: copies.get(id(one), one))

    def pairs(
        self, net: DirectRule, entries: Sequence[Tensor], loss: Tensor, masks: PassMasks | None
    ) -> Iterator[Pair]:
        """Yield the true and the sent derivative at the place of every run, from the last run to the first."""
        # In a chain every way from the loss to a place leads through the point.
        places = [run.place for run in self.runs if run.place is not None] if net.chain else []
        targets = [*entries, *(places if net.chain else (edge for run in self.runs for edge in run.taken))]
        true = dict(zip(targets, backward([(loss, None)], targets), strict=True))
        errors = [true[entry] for entry in entries]
        if all(e is None for e in errors):
            raise OutputError(
                "the loss is not computed from the place where the error is taken, so there is no error to measure; "
                "compute the loss outside of the model, or name with error_at= the module whose output the loss uses"
            )
        error = net.error_tap.rows(
            [torch.zeros_like(entry) if e is None else e for entry, e in zip(entries, errors, strict=True)]
        )
        if masks is not None and masks.of_error is not None:
            error = error.masked_fill(~real_rows(masks.of_error, error.shape[:-1]), 0)
        message = net.feedback.sketched(net.message(error))
        for run in reversed(self.runs):
            at_place = true[run.place] if run.place in true else run.at_place([true.get(edge) for edge in run.taken])
            form = net.feedback.forms[run.point]
            mask = None if masks is None else masks.at(run.point, form, message)
            sent = signal(message, net.feedback[run.point], form, run.shape, mask).to(run.dtype)
            yield run.point, at_place, run.at_place([sent])


def products_at_places(net: DirectRule, batch: Batch, *, preactivations: bool) -> Products:
    """Return the inner products of true and sent derivative at the places, [3, points + 1, *batch].

    The places are the pre-activations, or the points. Both derivatives go from the point to the place by way of the
    point alone. A point that runs several times contributes the features of every run, one that did not run zero.
    """
    before = {block.preactivation for block in net.blocks[:-1]} if preactivations else set()
    runs = Runs(net.points, before)
    entries, loss = true_pass(net, batch, runs.see, before.difference(net.points))
    axes = net.error_tap.batch_shape(entries[0])
    # An encoder has the samples in common with the output, and not the tokens.
    axes = axes[: len(axes) - max(form.summed for form in net.feedback.forms.values())]
    pairs = runs.pairs(net, entries, loss, batch.masks)
    masks = batch.masks
    if masks is None:
        return inner_products(pairs, net.points, axes)

    def counted(name: str, derivative: Tensor | None) -> Tensor | None:
        """Return a derivative with zeros at padding, so that padding has no angle and no length."""
        if derivative is None:
            return None
        form, error = net.feedback.forms[name], net.error_tap.rows(entries)
        return without_padding(derivative, masks.at(name, form, error), axes)

    return inner_products(((name, counted(name, a), counted(name, b)) for name, a, b in pairs), net.points, axes)


def _recorded(tensor: Tensor) -> Tensor:
    """Return a Tensor with a gradient; above frozen blocks alone an activation has none."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()
