"""One forward pass on the model's own graph, and the derivatives of the loss and of the rule's signals in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from feedalign.alignment.inner_products import Products, inner_products
from feedalign.anatomy import (
    Buffers,
    RandomNumbers,
    activation_of,
    arguments,
    exchange,
    mapped,
    observing,
    recordable,
    same_random_numbers,
    tensors_in,
)
from feedalign.errors import OutputError
from feedalign.rules import DirectRule, direct_signal


@dataclass(eq=False)
class PointRun:
    """One run of a point.

    Attributes:
        point: its name.
        shape: of the activation.
        dtype: of the activation.
        place: where derivatives are compared: at the pre-activation, or at the activation itself.
        given: where everything that the point's module returned left its operations, the activation first.
    """

    point: str
    shape: torch.Size
    dtype: torch.dtype
    place: GradientEdge
    given: list[GradientEdge]


class TruePass:
    """A forward pass on the model's own graph, with marks at the points and at their pre-activations.

    Args:
        net: a wrapped model.
        loss_fn: scalar loss of (output, y).
        x: input, a tuple of inputs, or a dict of inputs by keyword.
        y: whatever loss_fn takes.
        preactivations: compare at the pre-activations, instead of at the points.

    Attributes:
        runs: of the points, in order.
        entry: the Tensor at which the error is taken, as the loss takes it.
        loss: what loss_fn returned.

    Raises:
        OutputError: the loss is not one number with a gradient.
    """

    def __init__(
        self, net: DirectRule, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any, *, preactivations: bool
    ) -> None:
        self.net, self.loss_fn, self.y = net, loss_fn, recordable(y)
        self.args, self.kwargs = args, kwargs = arguments(net.model, x)
        self.before_buffers, self.before_numbers = Buffers(net.model), RandomNumbers(net.model)
        if not net.drawn:
            net.prepare(args, kwargs)
        self.points = set(net.points)
        self.before = {block.preactivation for block in net.blocks[:-1]} if preactivations else set()
        self.runs: list[PointRun] = []
        self.preactivation: GradientEdge | None = None  # the last one seen
        with torch.enable_grad(), net.backprop(self), observing(net.model, self.before - self.points, self):
            output = net(*args, **kwargs)
            tapped = net.error_tap.of(output, training=net.model.training)
            self.entry = tapped.view_as(tapped)  # what the model makes of it elsewhere is no part of the error
            self.loss = loss_fn(net.error_tap.put(output, tapped, self.entry), self.y)
        if self.loss.numel() != 1 or not self.loss.requires_grad:
            raise OutputError(
                f"loss_fn must give one number with a gradient, got shape {tuple(self.loss.shape)}, "
                f"requires_grad={self.loss.requires_grad}; sum or average over the batch, and do not detach"
            )

    def __call__(self, name: str, output: Any) -> Any:
        """Mark what a module returned; called when a point or a module that gives a pre-activation has run."""
        activation = activation_of(name, output)
        given, passed_on = mark(activation)
        if name in self.before:
            self.preactivation = given
        if name not in self.points:
            return exchange(output, activation, passed_on)
        place = self.preactivation if self.before else given
        assert place is not None  # the module that gives the pre-activation runs before the point, or is the point
        run = PointRun(name, activation.shape, activation.dtype, place, [given])
        self.runs.append(run)
        if output is activation:
            return passed_on
        others = [one for one in tensors_in(output) if one is not activation and one.is_floating_point()]
        marked = {id(one): mark(one) for one in others}
        run.given += [edge for edge, _ in marked.values()]
        instead = {key: new for key, (_, new) in marked.items()} | {id(activation): passed_on}
        return mapped(output, lambda one: instead.get(id(one), one))

    def derivatives(self, targets: Sequence[GradientEdge | Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        """Return the error at the entry, and the derivatives of the loss with respect to the targets."""
        error, *found = backward([(self.loss, None)], [self.entry, *targets])
        assert error is not None  # the loss has a gradient, and only by way of the entry
        return error, found

    def under_the_rule(self, targets: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the rule's gradients of the targets, from a pass like the true one that leaves no trace."""
        after = Buffers(self.net.model)
        self.before_buffers.restore()
        with same_random_numbers(self.net.model), torch.enable_grad():
            self.before_numbers.restore()
            output = self.net.run_without_learning(self.args, self.kwargs)
            found = backward([(self.loss_fn(output, self.y), None)], targets)
        after.restore()
        return found


def products_at_places(net: DirectRule, seen: TruePass) -> Products:
    """Return the inner products of true and sent derivative at the places, [3, points + 1, *batch].

    Both go from the point to the place by way of the point alone. A point that runs several times contributes the
    features of every run, one that did not run zero.
    """
    error, found = seen.derivatives([edge for run in seen.runs for edge in run.given])

    def pairs() -> Iterator[tuple[str, Tensor | None, Tensor | None]]:
        # Taken from the list as they are used, so that they are not all held until the end.
        found.reverse()
        for run, signal in zip(seen.runs, signals(net, error, seen.runs), strict=True):
            true = [found.pop() for _ in run.given]
            if run.place == run.given[0]:
                yield run.point, true[0], signal
            else:
                # What the loss does not use, such as a last hidden state, has no derivative.
                ends = [(edge, one) for edge, one in zip(run.given, true, strict=True) if one is not None]
                (back,), (sent,) = backward(ends, [run.place]), backward([(run.given[0], signal)], [run.place])
                yield run.point, back, sent

    return inner_products(pairs(), net.points, net.error_tap.batch_shape(seen.entry))


def products_at_parameters(net: DirectRule, seen: TruePass) -> Products:
    """Return the same at the parameters of the blocks that end at the points, where the batch has one: [3, points + 1].

    The rule's side is the rule's own gradient, from a second pass with the same random numbers: all that an optimizer
    would see, also of a weight that several blocks share.
    """
    owned = {name: _parameters(net, name) for name in net.points}
    targets = list(dict.fromkeys(one for own in owned.values() for one in own))
    _, found = seen.derivatives(targets)
    true, sent = dict(zip(targets, found, strict=True)), dict(zip(targets, seen.under_the_rule(targets), strict=True))
    pairs = ((point, dense(true[one]), dense(sent[one])) for point, own in owned.items() for one in own)
    return inner_products(pairs, net.points, ())


def dense(gradient: Tensor | None) -> Tensor | None:
    """Return a gradient as a dense Tensor."""
    return None if gradient is None else gradient.to_dense()


def signals(net: DirectRule, error: Tensor, runs: Iterable[PointRun]) -> Iterator[Tensor]:
    """Yield what is sent to every run of a point, in the shape of its activation."""
    message = net.message(net.error_tap.rows(error))
    for run in runs:
        yield direct_signal(message, net.feedback[run.point]).reshape(run.shape).to(run.dtype)


def _parameters(net: DirectRule, point: str) -> list[Tensor]:
    """Return the trainable parameters of the blocks that end at a point."""
    modules = [net.model.get_submodule(name) for block in net.blocks if block.point == point for name in block.modules]
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    return list(dict.fromkeys(parameter for parameter in parameters if parameter.requires_grad))


def mark(tensor: Tensor) -> tuple[GradientEdge, Tensor]:
    """Return the edge by which a Tensor left its operation, and a copy that goes on in the Tensor's place.

    A copy, since what follows may change the Tensor in place.
    """
    if not tensor.requires_grad:  # above frozen blocks alone
        tensor = tensor.detach().requires_grad_()
    return get_gradient_edge(tensor), tensor.clone()


def backward(
    ends: Sequence[tuple[Tensor | GradientEdge, Tensor | None]], targets: Sequence[Any]
) -> list[Tensor | None]:
    """Return the derivative of the ends, weighted, with respect to each target; None where none depends on it."""
    if not ends or not targets:
        return [None] * len(targets)
    outputs, weights = zip(*ends, strict=True)
    return list(torch.autograd.grad(outputs, targets, weights, allow_unused=True, retain_graph=True))
