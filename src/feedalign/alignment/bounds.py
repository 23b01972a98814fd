"""Alignability: how far the weights of each layer can align with the feedback at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feedalign.alignment.weight import weight_alignment
from feedalign.anatomy import convolution_between
from feedalign.feedback import Convolution
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
        undefined: layers of which it is not known, and why.
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
    feedback = {name: matrix.double().cpu().numpy() for name, matrix in net.feedback_matrices.items()}
    measured = weight_alignment(net)
    modules = dict(net.model.named_modules())
    layers = {}
    for below, block in zip(net.blocks[:-1], net.blocks[1:], strict=True):
        label = ", ".join(block.weights) or block.point
        if label not in measured.layers:
            continue
        found = convolution_between(below, block, modules) if block.point else ""
        if isinstance(found, Convolution):
            shape, F_in = found.geometry, feedback[below.point]
            bound = convolution.best_match(feedback[block.point], F_in, shape).alignment
            estimates = (
                convolution.random_estimate(shape, F_in.shape[1]),
                convolution.channelwise_estimate(shape),
            )
        else:
            bound, estimates = 1.0, (1.0, 1.0)
        layers[label] = LayerAlignability(bound, measured.layers[label], *estimates)
    return Alignability(layers, measured.undefined)
