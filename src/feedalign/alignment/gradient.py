"""Gradient alignment: the angle between what a rule sends to a layer and what backprop would send there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import BackwardCFunction

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

_PIECE = 2**15

At = Literal["preactivation", "point", "parameters"]


@dataclass(frozen=True, eq=False)
class GradientAlignment:
    """Cosines between the rule's and the true derivative of the loss, at every feedback point.

    Attributes:
        layers: mean over samples, by point; NaN where no sample has an angle.
        total: mean over samples of the cosine of all layers' derivatives, concatenated.
        per_sample: cosine of every sample, [*batch], by point; NaN where the true or the rule's derivative is zero.
            At the parameters the batch has one gradient, and this one cosine, [].
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
    products = _products(net, loss_fn, x if isinstance(x, tuple) else (x,), y, at)
    grams = torch.stack(list(products.values()))  # [points, *batch, 2, 2]
    cosines = _cosine(torch.cat([grams, grams.sum(0, keepdim=True)]))  # and of all points together
    # The rest in numpy: a small network's step is no longer than a few of torch's calls.
    G = grams.cpu().numpy().reshape(len(grams), -1, 2, 2)
    _check_finite(G, list(products))
    flat = cosines.cpu().numpy().reshape(len(grams) + 1, -1)
    missing = np.isnan(flat)
    *skipped, _ = missing.sum(1).tolist()
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where nothing has an angle or a length
        *layers, total = (np.where(missing, 0, flat).sum(1) / (~missing).sum(1)).tolist()
        ratios = np.sqrt(G[..., 1, 1].sum(1) / G[..., 0, 0].sum(1)).tolist()
    return GradientAlignment(
        layers=dict(zip(products, layers, strict=True)),
        total=total,
        per_sample=dict(zip(products, cosines, strict=False)),
        skipped=dict(zip(products, skipped, strict=True)),
        norm_ratios=dict(zip(products, ratios, strict=True)),
    )


def _cosine(gram: Tensor) -> Tensor:
    """Return a·b / |a||b| from inner products [..., 2, 2] of a and b; NaN where one of them is zero."""
    return gram[..., 0, 1] / (gram[..., 0, 0].sqrt() * gram[..., 1, 1].sqrt())


@dataclass(eq=False)
class _Run:
    """One run of a point."""

    point: str
    place: Tensor | None  # the pre-activation, if derivatives are compared there
    given: list[Tensor]  # everything the module gave, activation first

    def back(self, derivatives: Sequence[Tensor | None]) -> Tensor:
        """Return the derivative at the place from those at what the module gave, by way of the point alone."""
        assert self.place is not None
        at_place = derivatives[0]
        if self.path is not None and at_place is not None:
            for node in self.path:
                at_place = node(at_place)
            return at_place.detach()
        # What the loss does not use, such as a last hidden state, has none; what is sent is for the activation alone.
        ends = [(end, one) for end, one in zip(self.given, derivatives, strict=False) if one is not None]
        (found,) = _backward(ends, [self.place])
        return torch.zeros_like(self.place) if found is None else found

    @cached_property
    def path(self) -> list[Any] | None:
        """Return the operations from the activation back to the place, if each takes nothing but the one before.

        Called one after the other they are the backward pass, without the start of an engine, which takes longer.
        """
        assert self.place is not None
        node: Any = self.given[0].grad_fn
        end: Any = self.place.grad_fn
        path: list[Any] = []
        if len(self.given) > 1 or end is None or self.place.output_nr:
            return None
        while node is not end:
            if node is None or isinstance(node, BackwardCFunction) or len(node.next_functions) != 1:
                return None
            path.append(node)
            ((node, _),) = node.next_functions
        return path


def _products(
    net: Rule, loss_fn: Callable[[Any, Any], Tensor], inputs: tuple[Any, ...], y: Any, at: At
) -> dict[str, Tensor]:
    """Return the inner products of true and sent derivative at every point, [*batch, 2, 2]; [2, 2] at the parameters.

    A point that runs several times contributes the features of every run, its parameters the sum over runs.
    """
    if not net.blocks:
        with torch.no_grad():
            net(*inputs)
    runs: list[_Run] = []
    with torch.enable_grad(), net.backprop(), observing(net.model, _watched(net, at), _Marker(net, at, runs)):
        output = net(*inputs)
        tapped = net.error_tap.of(output)
        entry = tapped.view_as(tapped)  # what the model makes of it elsewhere is no part of the error that is sent
        loss = loss_fn(exchange(output, tapped, entry), y)
    if loss.numel() != 1 or not loss.requires_grad:
        raise OutputError(
            f"loss_fn must give one number with a gradient, got shape {tuple(loss.shape)}, "
            f"requires_grad={loss.requires_grad}; sum or average over the batch, and do not detach"
        )
    parameters = {name: _parameters(net, name) for name in net.points} if at == "parameters" else {}
    ends = [run.given[0] for run in runs] if at == "point" else [given for run in runs for given in run.given]
    targets = list(dict.fromkeys(one for each in parameters.values() for one in each)) if parameters else ends
    error, *arriving = _backward([(loss, None)], [entry, *targets])
    assert error is not None  # the loss has a gradient, and only by way of its argument
    error = net.error_tap.rows(error)
    message = net.message(error) if isinstance(net, DirectRule) else error
    matrices = net.feedback_matrices
    signals = [
        direct_signal(message, matrices[run.point]).reshape(run.given[0].shape).to(run.given[0].dtype) for run in runs
    ]
    if parameters:
        true = dict(zip(targets, _filled(arriving, targets), strict=True))
        sent = _sent_to_parameters(runs, signals, parameters)
        named = [(name, pair) for name, own in parameters.items() for pair in _vectors(true, sent, own)]
        sums = {name: error.new_zeros(2, 2, dtype=torch.float64) for name in net.points}
        for (name, _), gram in zip(named, _grams([pair for _, pair in named]), strict=True):
            sums[name] = sums[name] + gram
        return sums
    products: dict[str, Tensor] = {}
    at_ends, pairs = iter(arriving), []
    for run, signal in zip(runs, signals, strict=True):
        if at == "point":
            pair = [*_filled([next(at_ends)], run.given[:1]), signal]
        else:
            pair = [run.back([next(at_ends) for _ in run.given]), run.back([signal])]
        pairs.append([side.reshape(*error.shape[:-1], -1) for side in pair])
    for run, gram in zip(runs, _grams(pairs), strict=True):
        products[run.point] = products[run.point] + gram if run.point in products else gram
    return {name: products[name] for name in net.points}


def _sent_to_parameters(
    runs: list[_Run], signals: list[Tensor], parameters: dict[str, list[Tensor]]
) -> dict[Tensor, Tensor]:
    """Return what the signals make of every parameter, each signal ending at the points below its own."""
    wanted = [one for each in parameters.values() for one in each]
    found: list[Tensor | None] = []
    if len(set(wanted)) == len(wanted) == sum(len(parameters[run.point]) for run in runs):
        # What runs once is out of the other blocks' reach.
        for run, signal in zip(runs, signals, strict=True):
            found += _backward([(run.given[0], signal)], parameters[run.point])
        wanted = [one for run in runs for one in parameters[run.point]]
    else:
        # One pass, in which each activation gets its own signal in place of whatever comes from above.
        instead = [(run.given[0], signal) for run, signal in zip(runs, signals, strict=True)]
        instead += [(other, torch.zeros_like(other)) for run in runs for other in run.given[1:]]
        handles = [tensor.register_hook(lambda _, new=new: new) for tensor, new in instead]
        wanted = list(dict.fromkeys(wanted))
        found = _backward([(run.given[0], signal) for run, signal in zip(runs, signals, strict=True)], wanted)
        for handle in handles:
            handle.remove()
    return dict(zip(wanted, _filled(found, wanted), strict=True))


def _watched(net: Rule, at: At) -> list[str]:
    before = [block.preactivation for block in net.blocks] if at == "preactivation" else []
    return list(dict.fromkeys([*before, *net.points]))


class _Marker:
    """Sees every module that gives a pre-activation or an activation, and keeps where the derivatives are taken."""

    def __init__(self, net: Rule, at: At, runs: list[_Run]) -> None:
        self.points, self.runs = set(net.points), runs
        self.before = {block.preactivation for block in net.blocks} if at == "preactivation" else set()
        self.latest: Tensor | None = None  # the pre-activation

    def __call__(self, name: str, output: Any) -> Any:
        activation = activation_of(name, output)
        if name in self.before:
            self.latest = _live(activation)
            # The copy protects a_l from activations that work in place.
            copied = self.latest.clone()
            output = copied if output is activation else exchange(output, activation, copied)
            activation = copied
        if name not in self.points:
            return output
        if output is activation:  # the usual case, in short
            self.runs.append(_Run(name, self.latest, [_live(activation)]))
            return self.runs[-1].given[0].clone()
        others = [given for given in tensors_in(output) if given is not activation and given.is_floating_point()]
        given = {id(one): _live(one) for one in (activation, *others)}
        self.runs.append(_Run(name, self.latest, list(given.values())))
        # Copies again: what follows may work on them in place.
        return mapped(output, lambda one: given[id(one)].clone() if id(one) in given else one)


def _live(tensor: Tensor) -> Tensor:
    """Return a tensor that carries a gradient; above frozen blocks alone nothing would."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _parameters(net: Rule, point: str) -> list[Tensor]:
    """Return the trainable parameters of the blocks that end at a point."""
    modules = [net.model.get_submodule(name) for block in net.blocks if block.point == point for name in block.modules]
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    return list(dict.fromkeys(parameter for parameter in parameters if parameter.requires_grad))


def _backward(ends: Sequence[tuple[Tensor, Tensor | None]], targets: list[Tensor]) -> list[Tensor | None]:
    """Return the derivative of the ends, weighted, with respect to each target; None where none depends on it."""
    live = [(end, weight) for end, weight in ends if end.requires_grad]
    if not live or not targets:
        return [None] * len(targets)
    tensors, weights = zip(*live, strict=True)
    return list(torch.autograd.grad(tensors, targets, weights, allow_unused=True, retain_graph=True))


def _filled(derivatives: Sequence[Tensor | None], places: list[Tensor]) -> list[Tensor]:
    """Return derivatives, those that are None as zeros of the shape of their place."""
    both = zip(derivatives, places, strict=True)
    return [torch.zeros_like(place) if one is None else one for one, place in both]


def _check_finite(grams: NDArray[np.float64], points: list[str]) -> None:
    finite = np.isfinite(grams).all((1, 2, 3))
    if not finite.all():
        name = points[int(np.flatnonzero(~finite)[-1])]  # the topmost: from there it has come down
        raise OutputError(f"the derivative at point {name!r} is not finite; the network has diverged")


def _grams(pairs: list[list[Tensor]]) -> list[Tensor]:
    """Return the inner products of every pair of [*batch, features], [*batch, 2, 2], in float64.

    Squares in single precision would underflow. Large ones are taken piece by piece, so that what is float64 stays in
    the cache; small ones of one shape at once.
    """
    alike = len({side.shape for pair in pairs for side in pair}) == 1
    if alike and len(pairs) > 1 and sum(side.numel() for pair in pairs for side in pair) <= 2 * _PIECE:
        both = torch.stack([torch.stack(pair, -2) for pair in pairs]).double()
        return list(both @ both.mT)
    return [_gram(*pair) for pair in pairs]


def _gram(a: Tensor, b: Tensor) -> Tensor:
    if a.numel() <= _PIECE:
        return _gram_of(a, b)
    *batch, features = a.shape
    if batch:
        rows = max(1, _PIECE // max(1, features))
        pieces = zip(*(side.reshape(-1, features).split(rows) for side in (a, b)), strict=True)
        return torch.cat([_gram_of(*piece) for piece in pieces]).reshape(*batch, 2, 2)
    pieces = zip(a.split(_PIECE), b.split(_PIECE), strict=True)
    return torch.stack([_gram_of(*piece) for piece in pieces]).sum(0)


def _vectors(true: dict[Tensor, Tensor], sent: dict[Tensor, Tensor], own: list[Tensor]) -> list[list[Tensor]]:
    """Return the two gradients of parameters as vectors, in one pair where they are small.

    A linear layer's are transposed in memory, and are taken in that order, without a copy.
    """
    pairs = []
    for one in own:
        pair = [true[one], sent[one]]
        if all(side.ndim == 2 and side.mT.is_contiguous() for side in pair):
            pair = [side.mT for side in pair]
        pairs.append([side.flatten() for side in pair])
    if len(pairs) > 1 and sum(len(side) for side, _ in pairs) <= _PIECE:
        return [[torch.cat(sides) for sides in zip(*pairs, strict=True)]]
    return pairs


def _gram_of(a: Tensor, b: Tensor) -> Tensor:
    both = torch.stack([a, b], -2).double()
    return both @ both.mT
