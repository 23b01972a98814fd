"""Weight alignment: the angle between a layer's weights and the product of feedback matrices they should grow along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feedalign.rules import Block, Rule, SequentialRule, check_wrapped, weight_matrices


@dataclass(frozen=True, eq=False)
class WeightAlignment:
    """Cosines between weights and feedback products, by dotted name of the module that holds the weights.

    Attributes:
        layers: one cosine a layer; the mean over the networks of an ensemble.
        total: the same on the layers' weights concatenated; NaN without any layer.
        per_network: the cosines before that mean: shape [E] for an ensemble, [] for one network.
        undefined: layers that have no such angle, and why.
    """

    layers: dict[str, float]
    total: float
    per_network: dict[str, Tensor]
    undefined: dict[str, str]


@torch.no_grad()
def weight_alignment(net: Rule) -> WeightAlignment:
    r"""Measure how far each layer's weights point along the feedback, whatever the widths.

    .. math:: \cos(\mathrm{vec}\, W_l, \mathrm{vec}\, F_l F_{l-1}^T) \; (2 ≤ l < L), \quad
        \cos(\mathrm{vec}\, W_L, \mathrm{vec}\, F_{L-1}^T).

    The first layer has no such angle and is left out; weights are [..., out, in] as PyTorch stores them. A block that
    holds other than one matrix of the right shape (a convolution, two linear maps) is reported as undefined.

    Under a sequential rule the angle is that between W_l and what replaces it in the backward pass, for every layer
    that is replaced.

    Args:
        net: a wrapped model whose feedback is drawn.

    Returns:
        Cosines by layer and in total.

    Raises:
        ArgumentError: `net` is not wrapped.
        PointsError: the feedback is not drawn yet.
    Source: Refinetti et al. (2021), eq. 12.
    """
    check_wrapped(net)
    if isinstance(net, SequentialRule):
        return _of_backward_weights(net)
    feedback = net.feedback_matrices
    modules = dict(net.model.named_modules())
    cosines, undefined, parts = {}, {}, []
    for below, block in zip(net.blocks[:-1], net.blocks[1:], strict=True):
        F_below = feedback[below.point].double()
        target = feedback[block.point].double() @ F_below.T if block.point else F_below.T
        label = ", ".join(block.weights) or block.point
        weight = weight_of(block, modules, target.shape)
        if isinstance(weight, str):
            undefined[label] = weight
        else:
            flat = weight.double().flatten(-2)
            cosines[label] = _cosine(flat, target.flatten())
            parts.append((flat, target.flatten().expand_as(flat)))
    return _summary(cosines, parts, undefined)


def _of_backward_weights(net: SequentialRule) -> WeightAlignment:
    cosines, parts = {}, []
    for name, (weight, instead) in net.backward_weights().items():
        # Copies of a layer, as an ensemble has them, share one matrix.
        copies = weight.shape[:-2] if weight.numel() > net.feedback_matrices[name].numel() else ()
        sides = weight.double().reshape(*copies, -1), instead.double().reshape(*copies, -1)
        cosines[name] = _cosine(*sides)
        parts.append(sides)
    return _summary(cosines, parts, {})


def _summary(
    cosines: dict[str, Tensor], parts: list[tuple[Tensor, Tensor]], undefined: dict[str, str]
) -> WeightAlignment:
    whole = [torch.cat(sides, -1) for sides in zip(*parts, strict=True)]
    return WeightAlignment(
        layers={name: float(cosine.mean()) for name, cosine in cosines.items()},
        total=float(_cosine(*whole).mean()) if whole else float("nan"),
        per_network=cosines,
        undefined=undefined,
    )


def weight_of(block: Block, modules: dict[str, nn.Module], shape: Sequence[int | None]) -> Tensor | str:
    """Return the one weight matrix of a block, [..., *shape] with None for any, or why it has none of this shape."""
    found = [matrix for name in block.weights for matrix in weight_matrices(modules[name])]
    if len(found) != 1:
        return f"the block holds {len(found)} weight matrices, the angle is defined for one"
    expected = tuple(have if want is None else want for want, have in zip(shape, found[0].shape[-2:], strict=True))
    if found[0].shape[-2:] != expected:
        return f"weights of shape {tuple(found[0].shape)} are not one matrix {expected}"
    return found[0]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine over the last axis; NaN where one side is zero."""
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine: Tensor = (a * b).sum(-1) / norms
    return cosine
