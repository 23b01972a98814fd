"""How the output depends on the activation at each point, to first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import problems
from feedalign.anatomy.error_tap import ErrorTap
from feedalign.anatomy.tapping import tapped
from feedalign.anatomy.undisturbed import evaluating
from feedalign.anatomy.values import activation_of, exchange, observing
from feedalign.errors import PointsError


def mean_jacobians(
    model: nn.Module,
    points: Sequence[str],
    tap: ErrorTap,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Return the mean over the batch of ∂output/∂h at each point, [outputs, features], in evaluation mode.

    One backward pass for each output. The Jacobians of a point that runs several times add up, as its signals do.
    PointsError if nothing of a point's activation reaches the output.
    """
    places: list[tuple[str, Tensor]] = []

    def see(name: str, output: Any) -> Any:
        activation = activation_of(name, output)
        # Below frozen blocks an activation carries no gradient.
        place = activation if activation.requires_grad else activation.detach().requires_grad_()
        places.append((name, place))
        return exchange(output, activation, place.clone())  # a copy: what follows may change it in place

    with evaluating(model), torch.enable_grad(), observing(model, points, see):
        _, taken = tapped(model, tap, lambda: model(*args, **kwargs))
    outputs = tap.rows(taken)
    batch = outputs.shape[:-1].numel()
    rows: dict[str, list[Tensor]] = {name: [] for name in points}
    for total in outputs.flatten(0, -2).sum(0):
        gradients = torch.autograd.grad(total, [place for _, place in places], retain_graph=True, allow_unused=True)
        found: dict[str, Tensor] = {}
        for (name, _), gradient in zip(places, gradients, strict=True):
            if gradient is not None:
                found[name] = found.get(name, 0) + gradient.reshape(batch, -1).mean(0)
        for name in points:
            if name not in found:
                raise PointsError(f"point {problems.nothing_reaches_the_output(name)}")
            rows[name].append(found[name])
    return {name: torch.stack(of_point) for name, of_point in rows.items()}
