"""Gradient alignment: the angle between what a rule sends to a layer and what backprop would send there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

from feedalign.alignment.inner_products import Products, inner_products
from feedalign.errors import ArgumentError, OutputError
from feedalign.rules import (
    DirectRule,
    Rule,
    SequentialRule,
    activation_of,
    check_wrapped,
    direct_signal,
    exchange,
    mapped,
    observing,
    tensors_in,
)

At = Literal["preactivation", "point", "parameters"]


@dataclass(frozen=True, eq=False)
class GradientAlignment:
    """Cosines between the rule's and the true derivative of the loss, at every feedback point.

    Attributes:
        layers: mean over samples, by point; NaN where no sample has an angle.
        total: mean over samples of the cosine of all layers' derivatives, concatenated.
        per_sample: cosine of every sample, [*batch] on the CPU, by point; NaN where the true or the rule's derivative
            is zero. At the parameters the batch has one gradient, and this one cosine, [].
        skipped: how many samples have no angle for that reason, by point. They are left out of the means.
        norm_ratios: length of the rule's derivatives over that of the true ones, root mean squares over samples, by
            point; 1 means that both learn at the same speed.
    """

    layers: dict[str, float]
    total: float
    per_sample: dict[str, Tensor]
    skipped: dict[str, int]
    norm_ratios: dict[str, float]


def gradient_alignment(
    net: Rule,
    loss_fn: Callable[[Any, Any], Tensor],
    x: Any,
    y: Any,
    at: At = "preactivation",
) -> GradientAlignment:
    r"""Measure how well the error sent straight to each layer agrees with backprop, sample by sample.

    .. math:: \cos(δ_l^{DFA}, δ_l^{BP}), \quad δ_l^{DFA} = (F_l e) ⊙ g'(a_l), \quad δ_l^{BP} = ∂loss/∂a_l.

    One forward pass, one backward pass to the points, and from each point twice more the way back to the place of
    comparison; no parameter's `.grad` is touched. Derivatives have the model's precision, cosines are taken in float64.
    The model runs in the mode it is in (`net.eval()` first keeps batch-norm statistics as they are).
    Under a direct rule what is compared is what that rule sends, its `message` through F_l. Under a control such as
    `Backprop` it is DFA's signal with the feedback of the net: how well DFA *would* agree in the present weights.

    Args:
        net: a wrapped model.
        loss_fn: scalar loss of (output, y); its reduction factor does not matter.
        x: input, or a tuple of inputs.
        y: whatever loss_fn takes.
        at: "preactivation" compares δ_l at a_l, the output of the last module with parameters before the point;
            "point" compares F_l e with ∂loss/∂h_l at the point itself; "parameters" compares the two gradients of the
            block's parameters, summed over the batch: the update that the optimiser sees.

    Returns:
        Cosines by layer, in total and by sample.

    Raises:
        ArgumentError: unknown `at`, or `net` is not wrapped, or it passes the error on layer by layer, so that nothing
            is sent to a point; for such a rule see the cosines of `check_rule` and `weight_alignment`.
        OutputError: the loss is not a scalar with a gradient.
    Source: Refinetti et al. (2021), section 4.
    """
    if at not in get_args(At):
        raise ArgumentError(f"at={at!r} is unknown; expected one of {', '.join(map(repr, get_args(At)))}")
    check_wrapped(net)
    if isinstance(net, SequentialRule):
        raise ArgumentError(
            f"{type(net).__name__} sends no error straight to a layer, so there is nothing to compare at its points; "
            "check_rule(net, loss_fn, x, y).cosines compares its gradients with backprop's, weight_alignment(net) its "
            "weights"
        )
    runs, loss, entry = _forward(net, loss_fn, x if isinstance(x, tuple) else (x,), y, at)
    compare = _at_parameters if at == "parameters" else _at_runs
    # Where nothing has an angle or a length there is NaN; what is not finite raises.
    with torch.no_grad(), np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return _alignment(net.points, compare(net, runs, loss, entry))


def _alignment(points: Sequence[str], products: Products) -> GradientAlignment:
    """Return what the products [3, points + 1, *batch] say; OutputError unless all of them are finite."""
    flat = products.reshape(3, len(points) + 1, -1)
    true, _, sent = flat.sum(2)
    if not math.isfinite(true[-1] + sent[-1]):
        finite = np.isfinite(flat[:, :-1]).all((0, 2))
        name = points[np.flatnonzero(~finite)[-1]]  # the topmost: from there it has come down
        raise OutputError(f"the derivative at point {name!r} is not finite; the network has diverged")
    true_length, sent_length = np.sqrt(flat[::2])
    cosines = flat[1] / (true_length * sent_length)
    angle = ~np.isnan(cosines)
    samples = angle.sum(1)
    *layers, total = (cosines.sum(1, where=angle) / samples).tolist()
    per_sample = torch.from_numpy(cosines.reshape(-1, *products.shape[2:]))
    return GradientAlignment(
        layers=dict(zip(points, layers, strict=True)),
        total=total,
        per_sample=dict(zip(points, per_sample.unbind(), strict=False)),
        skipped=dict(zip(points, (flat.shape[2] - samples).tolist(), strict=False)),
        norm_ratios=dict(zip(points, np.sqrt(sent / true).tolist(), strict=False)),
    )


def _mark(tensor: Tensor) -> tuple[GradientEdge, Tensor]:
    """Return the edge by which a tensor left its operation, and what has to go on from there in the tensor's place.

    The edge stays where it is when what follows works on the tensor in place, so there is no need of a copy. Nor is the
    tensor kept: it may be large, and the model's own graph may have no use for it.
    """
    if not tensor.requires_grad:  # above frozen blocks alone; a leaf must not be worked on
        leaf = tensor.detach().requires_grad_()
        return get_gradient_edge(leaf), leaf.clone()
    # In-place operations on a view make its past anew, without the edge.
    return get_gradient_edge(tensor), tensor.clone() if tensor._is_view() else tensor


@dataclass(eq=False)
class _Run:
    """One run of a point."""

    point: str
    shape: torch.Size  # of the activation
    dtype: torch.dtype
    place: GradientEdge | None  # of the pre-activation, if derivatives are compared there
    given: list[GradientEdge]  # of everything the module gave, activation first

    def back(self, true: Sequence[Tensor | None], sent: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return both derivatives at the place from those at what the module gave, by way of the point alone.

        What the loss does not use, such as a last hidden state, has none; what is sent is for the activation alone.
        """
        path = self.path()
        return self._along(path, true), self._along(path, [sent])

    def _along(self, path: list[Any] | None, derivatives: Sequence[Tensor | None]) -> Tensor | None:
        assert self.place is not None
        derivative = derivatives[0]
        if path is not None and derivative is not None:
            for node in path:
                derivative = node(derivative)
            return derivative
        ends = [(edge, one) for edge, one in zip(self.given, derivatives, strict=False) if one is not None]
        return _backward(ends, [self.place])[0]

    def path(self) -> list[Any] | None:
        """Return the operations from the activation back to the place, if each takes nothing but the one before.

        Called one after the other they are the backward pass, without the start of an engine, which takes longer.
        """
        assert self.place is not None
        node: Any = self.given[0].node
        if len(self.given) > 1 or self.place.output_nr:
            return None
        path: list[Any] = []
        while node is not self.place.node:
            if node is None or isinstance(node, BackwardCFunction) or len(below := node.next_functions) != 1:
                return None
            path.append(node)
            node = below[0][0]
        return path


def _forward(
    net: Rule, loss_fn: Callable[[Any, Any], Tensor], inputs: tuple[Any, ...], y: Any, at: At
) -> tuple[list[_Run], Tensor, Tensor]:
    """Return the runs of the points in one forward pass, the loss, and the output it takes."""
    if not net.blocks:
        with torch.no_grad():
            net(*inputs)
    marker = _Marker(net, at)
    with torch.enable_grad(), net.backprop(marker), observing(net.model, marker.before - marker.points, marker):
        output = net(*inputs)
        tapped = net.error_tap.of(output)
        entry = tapped.view_as(tapped)  # what the model makes of it elsewhere is no part of the error that is sent
        loss = loss_fn(entry if output is tapped else exchange(output, tapped, entry), y)
    if loss.numel() != 1 or not loss.requires_grad:
        raise OutputError(
            f"loss_fn must give one number with a gradient, got shape {tuple(loss.shape)}, "
            f"requires_grad={loss.requires_grad}; sum or average over the batch, and do not detach"
        )
    return marker.runs, loss, entry


def _at_runs(net: Rule, runs: list[_Run], loss: Tensor, entry: Tensor) -> Products:
    """Return the inner products of true and sent derivative at the places of the runs, [3, points + 1, *batch].

    A point that runs several times contributes the features of every run, one that did not run zero.
    """
    error, *found = _backward([(loss, None)], [entry, *(edge for run in runs for edge in run.given)])
    # Nothing of a run is kept: what a step does without is slow to get from the system, every time.
    arriving = deque(found)
    del found
    pairs = (
        (run.point, *run.back([arriving.popleft() for _ in run.given], signal))
        for run, signal in zip(runs, _signals(net, error, runs), strict=True)
    )
    return inner_products(pairs, net.points, net.error_tap.batch_shape(entry))


def _at_parameters(net: Rule, runs: list[_Run], loss: Tensor, entry: Tensor) -> Products:
    """Return the same at the parameters of the blocks that end at the points, where the batch has one: [3, points + 1].

    What runs several times contributes the sum over its runs.
    """
    owned = {name: _parameters(net, name) for name in net.points}
    targets = list(dict.fromkeys(one for own in owned.values() for one in own))
    error, *found = _backward([(loss, None)], [entry, *targets])
    true = dict(zip(targets, found, strict=True))
    pairs = (
        (point, true[one], gradient)
        for point, sent in _sent_to_parameters(runs, _signals(net, error, runs), owned)
        for one, gradient in zip(owned[point], sent, strict=True)
    )
    return inner_products(pairs, net.points, ())


def _signals(net: Rule, error: Tensor | None, runs: list[_Run]) -> Iterator[Tensor]:
    """Give what is sent to every run of a point, in the shape of its activation."""
    assert error is not None  # the loss has a gradient, and only by way of its argument
    rows = net.error_tap.rows(error)
    message = net.message(rows) if isinstance(net, DirectRule) else rows
    for run, matrix in zip(runs, net.feedback.of(run.point for run in runs), strict=True):
        signal = direct_signal(message, matrix)
        if signal.shape != run.shape or signal.dtype != run.dtype:
            signal = signal.reshape(run.shape).to(run.dtype)
        yield signal


def _sent_to_parameters(
    runs: list[_Run], signals: Iterable[Tensor], owned: dict[str, list[Tensor]]
) -> Iterator[tuple[str, list[Tensor | None]]]:
    """Give point by point what the signals make of its parameters, each signal ending at the points below its own."""
    wanted = [one for own in owned.values() for one in own]
    ends = [(run.given[0], signal) for run, signal in zip(runs, signals, strict=True)]
    if len(set(wanted)) == len(wanted) == sum(len(owned[run.point]) for run in runs):
        # What runs once is out of the other blocks' reach.
        for run, end in zip(runs, ends, strict=True):
            yield run.point, _backward([end], owned[run.point])
        return
    # One pass, in which each activation gets its own signal in place of whatever comes from above.
    instead = [*ends, *((other, None) for run in runs for other in run.given[1:])]
    handles = [edge.node.register_prehook(partial(_replaced, edge.output_nr, new)) for edge, new in instead]
    wanted = list(dict.fromkeys(wanted))
    found = dict(zip(wanted, _backward(ends, wanted), strict=True))
    for handle in handles:
        handle.remove()
    for point, own in owned.items():
        yield point, [found[one] for one in own]


def _replaced(place: int, new: Tensor | None, arriving: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Hook of an operation: return what arrives at its outputs, with one of them, if anything has come, made new.

    None stands for zeros.
    """
    replaced = list(arriving)
    if (old := arriving[place]) is not None:
        replaced[place] = torch.zeros_like(old) if new is None else new
    return tuple(replaced)


class _Marker:
    """Sees every module that gives a pre-activation or an activation, and keeps where the derivatives are taken."""

    def __init__(self, net: Rule, at: At) -> None:
        self.at, self.points = at, set(net.points)
        self.before = {block.preactivation for block in net.blocks[:-1]} if at == "preactivation" else set()
        self.runs: list[_Run] = []
        self.preactivation: GradientEdge | None = None  # the last one seen

    def __call__(self, name: str, output: Any) -> Any:
        plain = isinstance(output, Tensor) and output.requires_grad  # the usual case, in short
        activation = output if plain else activation_of(name, output)
        if name in self.before:
            self.preactivation, passed_on = _mark(activation)
            output = passed_on if output is activation else exchange(output, activation, passed_on)
            activation = passed_on
        if name not in self.points:
            return output
        given, passed_on = _mark(activation)
        run = _Run(
            name, activation.shape, activation.dtype, given if self.at == "point" else self.preactivation, [given]
        )
        self.runs.append(run)
        if output is activation or self.at == "point":
            return passed_on if output is activation else exchange(output, activation, passed_on)
        others = [one for one in tensors_in(output) if one is not activation and one.is_floating_point()]
        marked = {id(one): _mark(one) for one in others}
        run.given += [edge for edge, _ in marked.values()]
        instead = {key: new for key, (_, new) in marked.items()} | {id(activation): passed_on}
        return mapped(output, lambda one: instead.get(id(one), one))


def _parameters(net: Rule, point: str) -> list[Tensor]:
    """Return the trainable parameters of the blocks that end at a point."""
    modules = [net.model.get_submodule(name) for block in net.blocks if block.point == point for name in block.modules]
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    return list(dict.fromkeys(parameter for parameter in parameters if parameter.requires_grad))


def _backward(
    ends: Sequence[tuple[Tensor | GradientEdge, Tensor | None]], targets: Sequence[Any]
) -> list[Tensor | None]:
    """Return the derivative of the ends, weighted, with respect to each target; None where none depends on it."""
    if not ends or not targets:
        return [None] * len(targets)
    outputs, weights = zip(*ends, strict=True)
    return list(torch.autograd.grad(outputs, targets, weights, allow_unused=True, retain_graph=True))
