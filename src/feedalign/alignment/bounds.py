"""Alignability: how far the weights of each layer can align with the feedback at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feedalign.alignment.weight import weight_alignment
from feedalign.anatomy import convolution_between
from feedalign.errors import ArgumentError
from feedalign.feedback import Convolution, Factors
from feedalign.geometry import Geometry
from feedalign.rules import DirectRule, check_direct


@dataclass(frozen=True)
class LayerAlignability:
    """How well a layer could align, beside how well it does.

    Attributes:
        bound: largest weight alignment any weights of the layer can reach, whatever the alignment matrix; 1 for a dense
            layer.
        weight_alignment: of the present weights; never above the bound.
        random: estimate of the bound under random feedback.
        channelwise: estimate of the bound under feedback constant over the positions of a channel.
    """

    bound: float
    weight_alignment: float
    random: float
    channelwise: float


@dataclass(frozen=True)
class Alignability:
    """Alignability of every layer above the first.

    Attributes:
        layers: by dotted name of the module that holds the weights.
        undefined: layers of which it is not known, and why: that is also so where the rank of the feedback is too high
            for the memory of this machine, or where feedback is zero.
    """

    layers: dict[str, LayerAlignability]
    undefined: dict[str, str]


@torch.no_grad()
def alignability(net: DirectRule) -> Alignability:
    """Tell how far the weights of each layer can align with the feedback, from shapes and feedback alone.

    Most entries of an unrolled convolution are zero and the others tied, so under random feedback its weights can
    hardly align, and the larger the image the less. No training changes this bound; feedback of another structure does
    (`feedback.Channelwise`, `feedback.Smooth`), and so does learned feedback (`DirectKolenPollack`).

    The bound is a bound of weight alignment, not of gradient alignment. Gradients below a layer with a bound near zero
    can align in principle: they only need W_{l+1}ᵀ F_{l+1} ≈ F_l. Measure them with `gradient_alignment`.

    Args:
        net: a wrapped model whose feedback is drawn. A convolution must be the only weights between two points, with
            nothing pooled; other layers are undefined.

    Raises:
        ArgumentError: `net` is not wrapped, or its rule sends no error straight to a layer.
        PointsError: the feedback is not drawn yet.
    Source: `feedalign.theory.convolution`.
    """
    from feedalign.theory import convolution

    check_direct(net, "so no layer has feedback to align with; wrap the model in DFA")
    measured = weight_alignment(net)
    modules = dict(net.model.named_modules())
    layers, undefined = {}, dict(measured.undefined)
    for below, block in zip(net.blocks[:-1], net.blocks[1:], strict=True):
        if block.label not in measured.layers:
            continue
        found = convolution_between(below, block, modules) if block.point else ""
        bound, estimates = 1.0, (1.0, 1.0)
        if isinstance(found, Convolution):
            F_out, F_in = net.feedback.factors(block.point), net.feedback.factors(below.point)
            assert F_out is not None
            assert F_in is not None
            estimates = (
                convolution.random_estimate(found.geometry, F_out.outputs),
                convolution.channelwise_estimate(found.geometry),
            )
            try:
                bound = _bound(F_out, F_in, found.geometry)
            except ArgumentError as refused:  # feedback of zeros, or of a rank that is too high for the memory
                undefined[block.label] = str(refused)
                continue
        layers[block.label] = LayerAlignability(bound, measured.layers[block.label], *estimates)
    return Alignability(layers, undefined)


def _bound(above: Factors, below: Factors, geometry: Geometry) -> float:
    """Return the alignability of a convolution, from matrices of as few columns as span the same space."""
    from feedalign.theory import convolution

    if above.copies == below.copies == "positions" and geometry.groups == 1 and above.rows.any() and below.rows.any():
        # All matrices that are constant over the positions of a channel are equally far from all kernels.
        return convolution.channelwise_estimate(geometry)
    F_out, F_in = (side.spread(side.narrow().T).T.cpu().numpy() for side in (above, below))
    return convolution.best_match(F_out, F_in, geometry).alignment
