"""Gradient alignment: the angle between what a rule sends to a layer and what backprop would send there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

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

    One forward pass, one backward pass, and once more the way from each point back through its own block; no
    parameter's `.grad` is touched. Derivatives have the model's precision, cosines are
    taken in float64. The model runs in the mode it is in (`net.eval()` first keeps batch-norm statistics as they are).
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
    per_sample = {name: _cosine(gram) for name, gram in products.items()}
    return GradientAlignment(
        layers={name: float(cosines.nanmean()) for name, cosines in per_sample.items()},
        total=float(_cosine(torch.stack(list(products.values())).sum(0)).nanmean()),
        per_sample=per_sample,
        skipped={name: int(cosines.isnan().sum()) for name, cosines in per_sample.items()},
        norm_ratios={
            name: float((gram[..., 1, 1].sum() / gram[..., 0, 0].sum()).sqrt()) for name, gram in products.items()
        },
    )


def _cosine(gram: Tensor) -> Tensor:
    """Return a·b / |a||b| from inner products [..., 2, 2] of a and b; NaN where one of them is zero."""
    return gram[..., 0, 1] / (gram[..., 0, 0].sqrt() * gram[..., 1, 1].sqrt())


@dataclass(eq=False)
class _Run:
    """One run of a point, where the graph is cut for the measurement."""

    point: str
    activation: Tensor
    places: list[Tensor]  # where the derivatives are taken, unless at the point itself
    cuts: list[tuple[Tensor, Tensor]]  # everything the module gave, activation first, and what stands in for it above


def _products(
    net: Rule, loss_fn: Callable[[Any, Any], Tensor], inputs: tuple[Any, ...], y: Any, at: At
) -> dict[str, Tensor]:
    """Return the inner products of true and sent derivative at every point, [*batch, 2, 2]; [2, 2] at the parameters.

    A point that runs several times contributes the features of every run, its parameters the sum over runs. The graph
    is cut at every point: the true derivative is handed on to the block below, what is sent goes no further.
    """
    if not net.blocks:
        with torch.no_grad():
            net(*inputs)
    runs: list[_Run] = []
    with torch.enable_grad(), net.backprop(), observing(net.model, _watched(net), _Cutter(net, at, runs)):
        output = net(*inputs)
        tapped = net.error_tap.of(output)
        entry = tapped.view_as(tapped)  # what the model makes of it elsewhere is no part of the error that is sent
        loss = loss_fn(exchange(output, tapped, entry), y)
    if loss.numel() != 1 or not loss.requires_grad:
        raise OutputError(
            f"loss_fn must give one number with a gradient, got shape {tuple(loss.shape)}, "
            f"requires_grad={loss.requires_grad}; sum or average over the batch, and do not detach"
        )
    leaves = [leaf for run in runs for _, leaf in run.cuts]
    error, *first = _backward([(loss, None)], [entry, *leaves])
    assert error is not None  # the loss has a gradient, and only by way of its argument
    error = net.error_tap.rows(error)
    message = net.message(error) if isinstance(net, DirectRule) else error
    arriving = dict(zip(leaves, first, strict=True))  # ∂loss/∂leaf, as far as it is known
    batch = error.shape[:-1]
    products: dict[str, Tensor] = {}
    sums: dict[str, list[list[Tensor]]] = {}  # at the parameters: of true and sent derivatives over the runs
    for run in reversed(runs):
        leaves = leaves[: len(leaves) - len(run.cuts)]
        ends = [(given, arriving[leaf]) for given, leaf in run.cuts if arriving[leaf] is not None]
        gradients = _backward(ends, [*run.places, *leaves])
        for leaf, gradient in zip(leaves, gradients[len(run.places) :], strict=True):
            if gradient is not None:
                known = arriving[leaf]
                arriving[leaf] = gradient if known is None else known + gradient
        signal = direct_signal(message, net.feedback_matrices[run.point]).reshape(run.activation.shape)
        signal = signal.to(run.activation.dtype)
        true: Sequence[Tensor | None] = gradients[: len(run.places)]
        sent: Sequence[Tensor | None] = _backward([(run.activation, signal)], run.places)
        places = run.places
        if at == "point":
            true, sent, places = [arriving[run.cuts[0][1]]], [signal], [run.activation]
        pair = [_filled(derivatives, places) for derivatives in (true, sent)]
        if at == "parameters":
            known_sums = sums.get(run.point)
            sums[run.point] = (
                pair if known_sums is None else [_added(a, b) for a, b in zip(known_sums, pair, strict=True)]
            )
        else:
            gram = _gram([part[0].reshape(*batch, -1) for part in pair], run.point)
            products[run.point] = products[run.point] + gram if run.point in products else gram
    for name, (true_sum, sent_sum) in sums.items():
        grams = [_gram([a.flatten(), b.flatten()], name) for a, b in zip(true_sum, sent_sum, strict=True)]
        products[name] = torch.stack(grams).sum(0) if grams else torch.zeros(2, 2, dtype=torch.float64)
    return {name: products[name] for name in net.points}


def _watched(net: Rule) -> list[str]:
    return list(dict.fromkeys([*(block.preactivation for block in net.blocks), *net.points]))


class _Cutter:
    """Sees every module that gives a pre-activation or an activation, and cuts the graph at the latter."""

    def __init__(self, net: Rule, at: At, runs: list[_Run]) -> None:
        self.net, self.at, self.runs = net, at, runs
        self.before = {block.preactivation for block in net.blocks}
        self.latest: Tensor | None = None  # the pre-activation
        self.parameters = {name: _parameters(net, name) if at == "parameters" else [] for name in net.points}

    def __call__(self, name: str, output: Any) -> Any:
        activation = activation_of(name, output)
        if name in self.before and self.at == "preactivation":
            # Of a frozen block nothing would carry a gradient.
            self.latest = activation if activation.requires_grad else activation.detach().requires_grad_()
            # The copy protects a_l from activations that work in place.
            copied = self.latest.clone()
            output, activation = exchange(output, activation, copied), copied
        if name not in self.net.points:
            return output
        others = [given for given in tensors_in(output) if given is not activation and given.is_floating_point()]
        leaves = {id(given): given.detach().requires_grad_() for given in (activation, *others)}
        places = self.parameters[name] if self.latest is None else [self.latest]
        self.runs.append(
            _Run(name, activation, places, [(given, leaves[id(given)]) for given in (activation, *others)])
        )
        # Copies again, of the leaves: what follows may work on them in place.
        return mapped(output, lambda given: leaves[id(given)].clone() if id(given) in leaves else given)


def _parameters(net: Rule, point: str) -> list[Tensor]:
    """Return the trainable parameters of the blocks that end at a point."""
    modules = [net.model.get_submodule(name) for block in net.blocks if block.point == point for name in block.modules]
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    return list(dict.fromkeys(parameter for parameter in parameters if parameter.requires_grad))


def _backward(ends: list[tuple[Tensor, Tensor | None]], targets: list[Tensor]) -> list[Tensor | None]:
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


def _added(some: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(some, others, strict=True)]


def _gram(pair: list[Tensor], point: str) -> Tensor:
    """Return the inner products of two [*batch, features], [*batch, 2, 2], in float64.

    Squares in single precision would underflow. Piece by piece, so that what is float64 stays in the cache.
    """
    *batch, features = pair[0].shape
    if batch:
        rows = max(1, _PIECE // max(1, features))
        pieces = zip(*(side.reshape(-1, features).split(rows) for side in pair), strict=True)
        gram = torch.cat([_gram_of(*piece) for piece in pieces]).reshape(*batch, 2, 2)
    else:
        pieces = zip(*(side.split(_PIECE) for side in pair), strict=True)
        gram = torch.stack([_gram_of(*piece) for piece in pieces]).sum(0)
    if not gram.isfinite().all():
        raise OutputError(f"the derivative at point {point!r} is not finite; the network has diverged")
    return gram


def _gram_of(a: Tensor, b: Tensor) -> Tensor:
    both = torch.stack([a.double(), b.double()], -2)
    return both @ both.mT
