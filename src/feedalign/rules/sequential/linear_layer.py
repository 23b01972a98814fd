"""What a sequential rule must know of a linear layer: where its weight is, and what the layer computes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from feedalign.anatomy import evaluating, gathered, weights_in_use

# (layer, input, weight, bias or None) → the layer's output for this weight and this bias.
Formula = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]


class Gradients(NamedTuple):
    """The backward pass of a layer, written out: quicker than autograd through the formula."""

    hold: Callable[[Any], bool]  # whether they hold for a layer
    of_input: Callable[[Any, torch.Size, Tensor, Tensor], Tensor]  # of (layer, shape of the input, weight, dloss/dout)
    of_weight: Callable[[Any, Tensor, torch.Size, Tensor], Tensor]  # of (layer, input, shape of the weight, dloss/dout)


def product(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG001
    """Return x Wᵀ + b, for a weight [out, in]."""
    return functional.linear(x, weight, bias)


def transposed_product(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG001
    """Return x W + b, for a weight [in, out]."""
    return functional.linear(x, weight.mT, bias)


@dataclass(frozen=True)
class LinearLayer:
    """How the layers of a class hold their weight, and what they compute with it.

    As a matrix, a weight is [fan-in, outputs]. Of a weight [out, in, *kernel] the fan-in is in × kernel.
    """

    kind: type[nn.Module]  # its subclasses count as well, if their output is that of the formula
    formula: Formula = product  # what a layer computes from an input, a weight and a bias
    # Names of attributes. The weight is a parameter, or what a parametrization or pruning computes. A layer without the
    # second attribute, or with None, has no bias.
    weight: str = "weight"
    bias: str = "bias"
    transposed: bool = False  # whether the weight is stored as [*kernel, in, out]
    copies: int = 0  # leading axes of the weight that count copies of the layer; all copies share one B
    output_axes: int = 1  # axes, behind those of the copies, that count outputs
    gradients: Gradients | None = None  # the backward pass, written out; None where it is not

    def weight_now(self, layer: nn.Module) -> Tensor:
        """Return the weight that the layer would compute with now, detached.

        Pruning and old weight norm compute the weight in a pass, so what a layer holds after a step of an optimizer is
        the weight of the pass before.
        """
        in_use = weights_in_use(layer)
        return gathered(in_use[self.weight]).detach() if self.weight in in_use else self.weight_of(layer).detach()

    def weight_of(self, layer: nn.Module) -> Tensor:
        """Return the weight that the layer has just computed with; of a parametrization, that in evaluation mode.

        A parametrization in training mode may change its own state each time that the weight is read.
        """
        parametrizations = getattr(layer, "parametrizations", {})
        if self.weight in parametrizations:
            parametrization = parametrizations[self.weight]
            with evaluating(parametrization):
                computed: Tensor = parametrization()
            return gathered(computed)
        return gathered(getattr(layer, self.weight))

    def bias_of(self, layer: nn.Module) -> Tensor | None:
        """Return the bias of the layer, detached; None if it has no bias."""
        bias: Tensor | None = getattr(layer, self.bias, None)
        return None if bias is None else gathered(bias).detach()

    def where_it_moves(self, layer: nn.Module, gradient: Tensor) -> Tensor:
        """Return a gradient of the weight with zeros where pruning has cut the weight, which stays zero there."""
        return gradient * layer.get_buffer(f"{self.weight}_mask") if prune.is_pruned(layer) else gradient

    def as_matrix(self, weight: Tensor) -> Tensor:
        """Return something of the weight's shape as [fan-in, outputs], summed over the copies."""
        one = weight.sum(tuple(range(self.copies))) if self.copies else weight
        if self.transposed:
            return one.flatten(0, -2)
        return one.flatten(self.output_axes).flatten(0, self.output_axes - 1).T

    def as_weight(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """Return a matrix [fan-in, outputs] in the shape of the weight."""
        one = matrix if self.transposed else matrix.T
        return one.reshape(shape[self.copies :]).expand(shape)

    def gradients_of(self, layer: nn.Module) -> Gradients | None:
        """Return the written-out backward pass of the layer; None if the formula must be run once more."""
        # A forward of the layer's own may return a view, which the quick way could not tie to its input.
        ordinary = type(layer).forward is self.kind.forward
        return self.gradients if ordinary and self.gradients is not None and self.gradients.hold(layer) else None
