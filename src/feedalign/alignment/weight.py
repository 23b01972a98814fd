"""Weight alignment: the angle between a layer's weights and the product of feedback matrices they should grow along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feedalign.anatomy import Block, convolution_between, gathered, weight_matrices
from feedalign.feedback import Convolution, Factors
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
    formed. How large the cosine can get there says `alignability`. Feedback that is stored by few numbers is measured
    from these numbers; no F_l is made.

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
    net.feedback.check_drawn()
    net.settle()
    modules = dict(net.model.named_modules())
    products, undefined = {}, {}
    below = net.feedback.factors(net.blocks[0].point)
    for lower, block in zip(net.blocks[:-1], net.blocks[1:], strict=True):
        above = net.feedback.factors(block.point)  # none above the readout
        assert below is not None  # only the last block ends at no point
        shape = below.outputs if above is None else above.features, below.features
        link = _link(lower, block, modules, shape)
        if isinstance(link, str):
            undefined[block.label] = link
        elif isinstance(link, Convolution):
            assert above is not None
            products[block.label] = _of_convolution(link, above, below)
        else:
            products[block.label] = _of_readout(link, below) if above is None else _of_matrix(link, above, below)
        below = above
    return _summary(products, undefined)


def _link(
    lower: Block, block: Block, modules: dict[str, nn.Module], shape: tuple[int, int]
) -> Tensor | Convolution | str:
    """Return what leads from a point to the next, a matrix of this shape or a convolution, or why there is neither."""
    weight = weight_of(block, modules, shape)
    found = convolution_between(lower, block, modules) if block.point else weight
    return found if isinstance(found, Convolution) or isinstance(weight, str) else weight


def _of_matrix(weight: Tensor, above: Factors, below: Factors) -> Tensor:
    """Return the inner products of W and F_l F_{l-1}ᵀ, [..., 3]."""
    left, right = above.beside(below)
    product = left @ right.T  # [rows, rows]
    summed = above.gathered(below.gathered(weight.double()).mT).mT
    copies = above.number_of_copies * below.number_of_copies
    return _three((summed * product).sum((-2, -1)), _squared(weight), copies * _squared(product))


def _of_readout(weight: Tensor, below: Factors) -> Tensor:
    """Return the inner products of W_L and F_{L-1}ᵀ, [..., 3]."""
    seen = below.on_columns(below.gathered(weight.double()).mT)  # [..., rows, columns]
    copies = below.number_of_copies
    return _three((seen * below.rows).sum((-2, -1)), _squared(weight), copies * _squared(below.rows))


def _of_convolution(link: Convolution, above: Factors, below: Factors) -> Tensor:
    """Return the inner products of an unrolled kernel and F_l F_{l-1}ᵀ, [3]."""
    from feedalign.theory import convolution  # only here: dense layers need no scipy

    kernel, (left, right) = link.kernel.double().cpu().numpy(), above.beside(below)
    if above.copies == below.copies == "positions":
        found = convolution.channel_products(kernel, (left @ right.T).cpu().numpy(), link.geometry)
    else:
        F, G = (factors.spread(side.T).T.cpu().numpy() for factors, side in ((above, left), (below, right)))
        found = convolution.inner_products(kernel, F, G, link.geometry)
    return torch.tensor(found, dtype=torch.float64)


def _of_backward_weights(net: SequentialRule) -> WeightAlignment:
    products, matrices = {}, net.feedback_matrices
    for name, (weight, instead) in net.backward_weights().items():
        # Copies of a layer, as an ensemble has them, share one matrix.
        copies = weight.shape[:-2] if weight.numel() > matrices[name].numel() else ()
        a, b = (side.double().reshape(*copies, 1, -1) for side in (weight, instead))
        products[name] = _three((a * b).sum((-2, -1)), _squared(a), _squared(b))
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


def _three(along: Tensor, of_weights: Tensor, of_feedback: Tensor) -> Tensor:
    """Return three inner products side by side, [..., 3]; the networks of an ensemble have the feedback in common."""
    return torch.stack([along, of_weights, of_feedback.expand(along.shape)], -1)


def _squared(matrix: Tensor) -> Tensor:
    """Return the sum of squares over the last two axes, in float64."""
    length: Tensor = torch.linalg.matrix_norm(matrix.double())
    return length.square()


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
