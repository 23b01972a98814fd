"""Gradient alignment: the angle between what a rule sends to a layer and what backprop would send there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

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
    observing,
)


@dataclass(frozen=True, eq=False)
class GradientAlignment:
    """Cosines between the rule's and the true derivative of the loss, at every feedback point.

    Attributes:
        layers: mean over samples, by point; NaN where no sample has an angle.
        total: mean over samples of the cosine of all layers' derivatives, concatenated.
        per_sample: cosine of every sample, [*batch], by point; NaN where the true or the rule's derivative is zero.
        skipped: how many samples have no angle for that reason, by point. They are left out of the means.
    """

    layers: dict[str, float]
    total: float
    per_sample: dict[str, Tensor]
    skipped: dict[str, int]


def gradient_alignment(
    net: Rule,
    loss_fn: Callable[[Any, Any], Tensor],
    x: Any,
    y: Any,
    at: Literal["preactivation", "point"] = "preactivation",
) -> GradientAlignment:
    r"""Measure how well the error sent straight to each layer agrees with backprop, sample by sample.

    .. math:: \cos(δ_l^{DFA}, δ_l^{BP}), \quad δ_l^{DFA} = (F_l e) ⊙ g'(a_l), \quad δ_l^{BP} = ∂loss/∂a_l.

    One forward pass, one backward pass to the pre-activations, and the step from each point back to its own
    pre-activation; no parameter's gradient is computed or changed. Derivatives have the model's precision, cosines are
    taken in float64. The model runs in the mode it is in (`net.eval()` first keeps batch-norm statistics as they are).
    Under a direct rule what is compared is what that rule sends, its `message` through F_l. Under a control such as
    `Backprop` it is DFA's signal with the feedback of the net: how well DFA *would* agree in the present weights.

    Args:
        net: a wrapped model.
        loss_fn: scalar loss of (output, y); its reduction factor does not matter.
        x: input, or a tuple of inputs.
        y: whatever loss_fn takes.
        at: "preactivation" compares δ_l at a_l, the output of the last module with parameters before the point;
            "point" compares F_l e with ∂loss/∂h_l at the point itself.

    Returns:
        Cosines by layer, in total and by sample.

    Raises:
        ArgumentError: unknown `at`, or `net` is not wrapped, or it passes the error on layer by layer, so that nothing
            is sent to a point; for such a rule see the cosines of `check_rule` and `weight_alignment`.
        OutputError: the loss is not a scalar with a gradient.
    Source: Refinetti et al. (2021), section 4.
    """
    if at not in ("preactivation", "point"):
        raise ArgumentError(f"at={at!r} is unknown; expected 'preactivation' or 'point'")
    check_wrapped(net)
    if isinstance(net, SequentialRule):
        raise ArgumentError(
            f"{type(net).__name__} sends no error straight to a layer, so there is nothing to compare at its points; "
            "check_rule(net, loss_fn, x, y).cosines compares its gradients with backprop's, weight_alignment(net) its "
            "weights"
        )
    true, sent = _derivatives(net, loss_fn, x if isinstance(x, tuple) else (x,), y, at == "point")
    dots = {name: (true[name] * sent[name]).sum(-1) for name in true}
    squares = {name: (true[name].square().sum(-1), sent[name].square().sum(-1)) for name in true}
    per_sample = {name: _cosine(dots[name], *squares[name]) for name in true}
    of_true, of_sent = (torch.stack(parts).sum(0) for parts in zip(*squares.values(), strict=True))
    return GradientAlignment(
        layers={name: float(cosines.nanmean()) for name, cosines in per_sample.items()},
        total=float(_cosine(torch.stack(list(dots.values())).sum(0), of_true, of_sent).nanmean()),
        per_sample=per_sample,
        skipped={name: int(cosines.isnan().sum()) for name, cosines in per_sample.items()},
    )


def _cosine(dot: Tensor, square_a: Tensor, square_b: Tensor) -> Tensor:
    """Return a·b / |a||b|, NaN where a or b is zero."""
    return dot / (square_a.sqrt() * square_b.sqrt())


def _derivatives(
    net: Rule, loss_fn: Callable[[Any, Any], Tensor], inputs: tuple[Any, ...], y: Any, at_point: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the true and the sent derivative at every point, [*batch, features] in float64.

    A point that runs several times contributes the features of every run.
    """
    if not net.blocks:
        with torch.no_grad():
            net(*inputs)
    before = dict.fromkeys(block.preactivation for block in net.blocks)
    runs: list[tuple[str, Tensor, Tensor]] = []  # point, where the derivative is taken, activation
    latest = torch.empty(0)

    def see(name: str, output: Any) -> Any:
        nonlocal latest
        activation = activation_of(name, output)
        if name in before:
            # The copy protects a_l from activations that work in place.
            latest = activation if activation.requires_grad else activation.detach().requires_grad_()
            copied = latest.clone()
            output, activation = exchange(output, activation, copied), copied
        if name in net.points:
            runs.append((name, activation if at_point else latest, activation))
        return output

    with torch.enable_grad(), net.backprop(), observing(net.model, dict.fromkeys([*before, *net.points]), see):
        output = net(*inputs)
        tapped = net.error_tap.of(output)
        entry = tapped.view_as(tapped)  # what the model makes of it elsewhere is no part of the error that is sent
        loss = loss_fn(exchange(output, tapped, entry), y)
    if loss.numel() != 1 or not loss.requires_grad:
        raise OutputError(
            f"loss_fn must give one number with a gradient, got shape {tuple(loss.shape)}, "
            f"requires_grad={loss.requires_grad}; sum or average over the batch, and do not detach"
        )
    error, *gradients = torch.autograd.grad(loss, [entry, *(place for _, place, _ in runs)], retain_graph=True)
    error = net.error_tap.rows(error)
    message = net.message(error) if isinstance(net, DirectRule) else error
    true: dict[str, list[Tensor]] = {name: [] for name in net.points}
    sent: dict[str, list[Tensor]] = {name: [] for name in net.points}
    for (name, place, activation), gradient in zip(runs, gradients, strict=True):
        signal = direct_signal(message, net.feedback_matrices[name]).reshape(activation.shape).to(activation.dtype)
        (local,) = torch.autograd.grad(activation, place, signal, retain_graph=True)
        for derivatives, value in ((true, gradient), (sent, local)):
            if not value.isfinite().all():
                raise OutputError(f"the derivative at point {name!r} is not finite; the network has diverged")
            derivatives[name].append(value.double().reshape(*error.shape[:-1], -1))
    joined_true, joined_sent = (
        {name: torch.cat(parts, -1) for name, parts in runs_of.items()} for runs_of in (true, sent)
    )
    return joined_true, joined_sent
