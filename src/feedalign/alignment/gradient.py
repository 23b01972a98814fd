"""Gradient alignment: the angle between what a rule sends to a layer and what backprop would send there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from feedalign.alignment.at_parameters import products_at_parameters
from feedalign.alignment.at_places import products_at_places
from feedalign.alignment.inner_products import Products
from feedalign.alignment.true_pass import Batch
from feedalign.checks import one_of
from feedalign.errors import OutputError
from feedalign.rules import DirectRule, check_direct, check_not_sharded

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
    net: DirectRule,
    loss_fn: Callable[[Any, Any], Tensor],
    x: Any,
    y: Any,
    at: At = "preactivation",
) -> GradientAlignment:
    r"""Measure how well the error sent straight to each layer agrees with backprop, sample by sample.

    .. math:: \cos(δ_l^{DFA}, δ_l^{BP}), \quad δ_l^{DFA} = (F_l e) ⊙ g'(a_l), \quad δ_l^{BP} = ∂loss/∂a_l.

    One forward pass, one backward pass, and once more the way from each point back to the place of comparison; at the
    parameters two forward and two backward passes. No parameter's `.grad` is touched. Derivatives have the model's
    precision, cosines are taken in float64.
    The model runs in the mode it is in (`net.eval()` first keeps batch-norm statistics as they are).
    Under a direct rule what is compared is what that rule sends, its `message` through F_l. Under a control such as
    `Backprop` it is DFA's signal with the feedback of the net: how well DFA *would* agree in the present weights.

    Args:
        net: a wrapped model.
        loss_fn: scalar loss of (output, y); its reduction factor does not matter.
        x: input, a tuple of inputs, or a dict of inputs by keyword.
        y: whatever loss_fn takes.
        at: "preactivation" compares δ_l at a_l, the output of the last module with parameters before the point;
            "point" compares F_l e with ∂loss/∂h_l at the point itself; "parameters" compares the two gradients of the
            block's parameters, summed over the batch: the update that the optimiser sees.

    Returns:
        Cosines by layer, in total and by sample.

    Raises:
        ArgumentError: unknown `at`, or `net` is not wrapped, or it passes the error on layer by layer, so that nothing
            is sent to a point; for such a rule see the cosines of `check_rule` and `weight_alignment`. Or `fully_shard`
            has sharded the model.
        OutputError: the loss is not a scalar with a gradient.
    Source: Refinetti et al. (2021), section 4.
    """
    one_of("at", at, get_args(At))
    check_direct(
        net,
        "so there is nothing to compare at its points; check_rule(net, loss_fn, x, y).cosines compares its gradients "
        "with backprop's, weight_alignment(net) its weights",
    )
    check_not_sharded(net, "gradient_alignment")
    # Where nothing has an angle or a length there is NaN; what is not finite raises.
    with torch.inference_mode(False), np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        batch = Batch.of(net, loss_fn, x, y)
        with torch.no_grad():
            if at == "parameters":
                return _alignment(net.points, products_at_parameters(net, batch))
            return _alignment(net.points, products_at_places(net, batch, preactivations=at == "preactivation"))


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
