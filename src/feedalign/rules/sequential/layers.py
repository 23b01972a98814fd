"""Layers whose output is linear in one weight: that weight as a matrix, and their backward pass with another weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import grad
from torch.nn.utils import parametrize, prune

from feedalign.anatomy import computed_by_hooks, plain_copy, weights_in_use
from feedalign.errors import PointsError

# Tuples, since the compiler of torch 2.7 does not know unions.
CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
CONVOLUTIONS_EITHER_WAY = *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d

_CONVOLUTION_GRADIENTS: dict[type[nn.Module], tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    nn.Conv1d: (grad.conv1d_input, grad.conv1d_weight),
    nn.Conv2d: (grad.conv2d_input, grad.conv2d_weight),
    nn.Conv3d: (grad.conv3d_input, grad.conv3d_weight),
}


def weight_name(layer: nn.Module) -> str:
    """Return the attribute from which the layer reads its one weight; PointsError if it has none or several."""
    names = list(weights_in_use(layer))
    if len(names) != 1:
        raise PointsError(
            f"a {type(layer).__name__} holds {len(names)} weight matrices of its own, and the transpose of exactly one "
            "can be replaced; give points= without it, then it passes the error on as in backprop"
        )
    return names[0]


def weight_of(layer: nn.Module) -> Tensor:
    """Return the layer's one weight, detached: the one that the layer multiplies by."""
    return gathered(weights_in_use(layer)[weight_name(layer)]).detach()


def weight_of_this_pass(layer: nn.Module, name: str) -> Tensor:
    """Return the weight that a layer has just multiplied by. Hooks that compute the weight have done so by then."""
    if type(layer) is not nn.Linear and parametrize.is_parametrized(layer, name):
        return weights_in_use(layer)[name]  # reading the attribute would compute the weight once more, as in training
    return gathered(getattr(layer, name))


def gathered(weight: Tensor) -> Tensor:
    """Return the whole of a weight that `fully_shard` has sharded; another weight as it is."""
    if not hasattr(weight, "full_tensor"):  # not isinstance: to import the class takes seconds
        return weight
    whole: Tensor = weight.full_tensor()
    return whole


def where_it_moves(layer: nn.Module, name: str, gradient: Tensor) -> Tensor:
    """Return a gradient of the weight with zeros where pruning has cut the weight, which stays zero there."""
    return gradient * layer.get_buffer(f"{name}_mask") if prune.is_pruned(layer) else gradient


def matrix_sizes(layer: nn.Module, weight: Tensor) -> tuple[int, int]:
    """Return (fan-in, outputs) of the weight as one matrix; of copies along leading axes, those of one copy."""
    if isinstance(layer, CONVOLUTIONS_EITHER_WAY):
        return math.prod(weight.shape[1:]), weight.shape[0]
    return weight.shape[-1], weight.shape[-2]


def as_weight(layer: nn.Module, matrix: Tensor, weight: Tensor) -> Tensor:
    """Return a matrix [fan-in, outputs] in the shape of the weight; copies along leading axes share it."""
    if isinstance(layer, CONVOLUTIONS_EITHER_WAY):
        return matrix.T.reshape(weight.shape)
    return matrix.T.expand(weight.shape)


def as_matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return something of a weight's shape as [fan-in, outputs], summed over copies along leading axes."""
    if isinstance(layer, CONVOLUTIONS_EITHER_WAY):
        return weight.flatten(1).T
    return weight.reshape(-1, *weight.shape[-2:]).sum(0).T if weight.ndim > 2 else weight.T


# Where torch makes a subclass of a layer's class, and changes only where the weight comes from.
_MADE_BY_TORCH = "torch.nn.utils.parametrize", "torch.distributed.fsdp"


def kind_of(layer: nn.Module) -> type[nn.Module]:
    """Return the layer's class: of a parametrized or sharded layer, the class that torch has made a subclass of."""
    kind = type(layer)
    if kind in (nn.Linear, *_CONVOLUTION_GRADIENTS) or not kind.__module__.startswith(_MADE_BY_TORCH):
        return kind
    return next(each for each in kind.__mro__ if not each.__module__.startswith(_MADE_BY_TORCH))


def has_formula(layer: nn.Module) -> bool:
    """Whether the layer's backward pass is written out here; else its forward pass must be run a second time."""
    kind = kind_of(layer)
    if kind is nn.Linear:
        return True
    return (
        isinstance(layer, CONVOLUTIONS)
        and kind in _CONVOLUTION_GRADIENTS
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def input_gradient(layer: Any, shape: torch.Size, weight: Tensor, sent: Tensor) -> Tensor:
    """Return dloss/dinput of a layer with this weight, from dloss/doutput; for layers that have a formula."""
    if isinstance(layer, nn.Linear):
        return sent @ weight
    of_input, _ = _CONVOLUTION_GRADIENTS[kind_of(layer)]
    batched = (1, *shape) if len(shape) == layer.weight.ndim - 1 else shape
    out = sent.unsqueeze(0) if len(batched) != len(shape) else sent
    return of_input(batched, weight, out, layer.stride, layer.padding, layer.dilation, layer.groups).reshape(shape)


def weight_gradient(layer: Any, x: Tensor, sent: Tensor) -> Tensor:
    """Return dloss/dweight from the input and dloss/doutput; for layers that have a formula."""
    if isinstance(layer, nn.Linear):
        return sent.reshape(-1, sent.shape[-1]).T @ x.reshape(-1, x.shape[-1]).to(sent.dtype)
    _, of_weight = _CONVOLUTION_GRADIENTS[kind_of(layer)]
    if x.ndim == layer.weight.ndim - 1:
        x, sent = x.unsqueeze(0), sent.unsqueeze(0)
    return of_weight(
        x.to(sent.dtype), layer.weight.shape, sent, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def with_weight(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """Run the layer with another weight and every other parameter as a constant."""
    if computed_by_hooks(layer) or parametrize.is_parametrized(layer):
        layer = plain_copy(layer)  # in the layer itself, the weight would be computed again
    constants = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    output: Tensor = functional_call(layer, {**constants, weight_name(layer): weight}, (x,))
    return output


def check_linear(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """Raise PointsError unless output(2W) − output(W) = output(W) − output(0): linear in W, but for a constant."""
    # A subclass may do something else with its weight.
    if inputs and kind_of(layer) in (nn.Linear, *_CONVOLUTION_GRADIENTS):
        return
    reason = ""
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
        reason = "it must take one Tensor, given by position, and return one"
    elif (held := weight_name(layer)) and inputs[0].is_floating_point():
        weight = weight_of(layer)
        nothing, once, twice = (with_weight(layer, factor * weight, inputs[0]) for factor in (0, 1, 2))
        # In single precision a sum of many terms is off by some 1e-6 of its size.
        if not torch.allclose(twice - once, once - nothing, rtol=1e-3, atol=1e-4 * float(once.abs().max())):
            reason = f"its output is not linear in its {held}"
    if reason:
        place = repr(name) if name else "the model itself"
        raise PointsError(
            f"the transposed weight of {place}, a {type(layer).__name__}, cannot be replaced: {reason}; give points= "
            "without it, then it passes the error on as in backprop"
        )
