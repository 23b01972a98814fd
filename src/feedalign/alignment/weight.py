"""Weight alignment: the angle between a layer's weights and the product of feedback matrices they should grow along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feedalign.anatomy import Block, convolution_between, gathered, weight_matrices
from feedalign.feedback import Convolution
from feedalign.rules import DirectRule, SequentialRule, Wrapped, check_wrapped


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
def weight_alignment(net: Wrapped) -> WeightAlignment:
    r"""Measure how far each layer's weights point along the feedback, whatever the widths.

    .. math:: \cos(\mathrm{vec}\, W_l, \mathrm{vec}\, F_l F_{l-1}^T) \; (2 ≤ l < L), \quad
        \cos(\mathrm{vec}\, W_L, \mathrm{vec}\, F_{L-1}^T).

    Of a convolution W_l is the unrolled, block-Toeplitz matrix, so each weight counts at every position; it is not
    formed. How large the cosine can get there says `alignability`.

    The first layer has no such angle and is left out; weights are [..., out, in] as PyTorch stores them. A block that
    holds other than one matrix or kernel between its points (two linear maps, a pooled convolution) is reported as
    undefined.

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
    assert isinstance(net, DirectRule)
    feedback = {name: matrix.double() for name, matrix in net.feedback_matrices.items()}
    modules = dict(net.model.named_modules())
    products, undefined = {}, {}
    for below, block in zip(net.blocks[:-1], net.blocks[1:], strict=True):
        label = ", ".join(block.weights) or block.point
        F_below, F = feedback[below.point], feedback.get(block.point)  # none above the readout
        target = F_below.T if F is None else F @ F_below.T
        weight = weight_of(block, modules, target.shape)
        link = weight if F is None else convolution_between(below, block, modules)
        if F is not None and isinstance(link, Convolution):
            from feedalign.theory import convolution  # only here: dense layers need no scipy

            kernel, above, beneath = (each.double().cpu().numpy() for each in (link.kernel, F, F_below))
            found = convolution.inner_products(kernel, above, beneath, link.geometry)
            products[label] = torch.tensor(found, dtype=torch.float64)
        elif isinstance(weight, Tensor):
            products[label] = _products(weight.flatten(-2), target.flatten())
        else:
            undefined[label] = str(link)
    return _summary(products, undefined)


def _of_backward_weights(net: SequentialRule) -> WeightAlignment:
    products = {}
    for name, (weight, instead) in net.backward_weights().items():
        # Copies of a layer, as an ensemble has them, share one matrix.
        copies = weight.shape[:-2] if weight.numel() > net.feedback_matrices[name].numel() else ()
        products[name] = _products(weight.reshape(*copies, -1), instead.reshape(*copies, -1))
    return _summary(products, {})


def weight_of(block: Block, modules: dict[str, nn.Module], shape: Sequence[int | None]) -> Tensor | str:
    """Return the one weight matrix of a block, [..., *shape] with None for any, or why it has none of this shape."""
    found = [matrix for name in block.weights for matrix in weight_matrices(modules[name])]
    if len(found) != 1:
        return f"the block holds {len(found)} weight matrices, the angle is defined for one"
    expected = tuple(have if want is None else want for want, have in zip(shape, found[0].shape[-2:], strict=True))
    if found[0].shape[-2:] != expected:
        return f"weights of shape {tuple(found[0].shape)} are not one matrix {expected}"
    return gathered(found[0])


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return a·b, a·a and b·b over the last axis, [..., 3], in float64."""
    a, b = a.double(), b.double()
    return torch.stack([(a * b).sum(-1), a.square().sum(-1), b.square().sum(-1).expand(a.shape[:-1])], -1)


def _summary(products: dict[str, Tensor], undefined: dict[str, str]) -> WeightAlignment:
    cosines = {name: _cosine(each) for name, each in products.items()}
    return WeightAlignment(
        layers={name: float(cosine.mean()) for name, cosine in cosines.items()},
        total=float(_cosine(torch.stack(list(products.values())).sum(0)).mean()) if products else float("nan"),
        per_network=cosines,
        undefined=undefined,
    )


def _cosine(products: Tensor) -> Tensor:
    """Return the cosine from the inner products [..., 3]; NaN where one side is zero."""
    return products[..., 0] / (products[..., 1] * products[..., 2]).sqrt()
