"""Which classes of layers a sequential rule knows: torch's, the house's own, and what a user registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional, grad

from feedalign.checks import flag, shown, whole_number
from feedalign.errors import ArgumentError
from feedalign.networks import EnsembleLinear, TiledConv2d, UnrolledConv2d
from feedalign.rules.sequential.linear_layer import Formula, Gradients, LinearLayer, product, transposed_product

_CONVOLVE: dict[int, Callable[..., Tensor]] = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
_CONVOLVE_BACK: dict[int, Callable[..., Tensor]] = {
    3: functional.conv_transpose1d,
    4: functional.conv_transpose2d,
    5: functional.conv_transpose3d,
}
_OF_INPUT: dict[int, Callable[..., Tensor]] = {3: grad.conv1d_input, 4: grad.conv2d_input, 5: grad.conv3d_input}
_OF_WEIGHT: dict[int, Callable[..., Tensor]] = {3: grad.conv1d_weight, 4: grad.conv2d_weight, 5: grad.conv3d_weight}


def known_layer(layer: nn.Module) -> LinearLayer | None:
    """Return what is known of the class of a layer, or of the nearest class that it is derived from; else None."""
    return next((_KNOWN[kind] for kind in type(layer).__mro__ if kind in _KNOWN), None)


def known_names() -> str:
    """Return the names of the classes that are known, in one line."""
    return ", ".join(sorted(kind.__name__ for kind in _KNOWN))


def registered() -> list[type[nn.Module]]:
    """Return the classes that a user has registered."""
    return [kind for kind in _KNOWN if kind not in _OWN]


def register_linear_layer(
    kind: type[nn.Module],
    weight: str = "weight",
    *,
    bias: str = "bias",
    transposed: bool = False,
    copies: int = 0,
    formula: Formula | None = None,
) -> None:
    """Let `FA`, `SignSymmetry` and `KolenPollack` replace the transposed weight of the layers of a class.

    These rules know `nn.Linear`, the convolutions of `torch.nn`, and the layers of `feedalign.networks`. Every other
    module passes the error on as in backprop, unless its class is registered here. `points="auto"` takes registered
    layers too. When a model is wrapped, the rule runs the model once and compares the output of each layer with the
    formula; a layer that computes something else is refused.

    >>> import torch, feedalign as fa
    >>> class Conv1D(torch.nn.Module):  # as in Hugging Face's GPT-2: a linear layer with a weight [in, out]
    ...     def __init__(self, inputs, outputs):
    ...         super().__init__()
    ...         self.weight = torch.nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
    ...         self.bias = torch.nn.Parameter(torch.zeros(outputs))
    ...
    ...     def forward(self, x):
    ...         return x @ self.weight + self.bias
    >>> fa.register_linear_layer(Conv1D, transposed=True)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), Conv1D(6, 3))
    >>> fa.FA(model).points
    ('2',)

    Args:
        kind: the class of the layer. A layer takes one Tensor by position and returns one Tensor. Its subclasses are
            known as well. A class that is registered already is registered anew.
        weight: name of the attribute that holds the weight, [out, in] or [out, in, *kernel].
        bias: name of the attribute that holds the bias; a layer without this attribute, or with None, has no bias.
        transposed: whether the weight is stored as [in, out].
        copies: number of leading axes of the weight that count copies of the layer, as in an ensemble: with 1, a weight
            [copies, out, in]. All copies share one B.
        formula: called as formula(layer, x, weight, bias), with the bias None or detached; returns the output of the
            layer for this weight and this bias, and uses no other parameter. It must be linear in the weight. Unless
            given, x @ weight.T + bias, or x @ weight + bias for a transposed weight. A formula is needed for anything
            else, such as copies and kernels.

    Raises:
        ArgumentError: `kind` is no class of modules, a name is no text, `transposed` is no bool, `copies` is no whole
            number of at least 0, or `formula` cannot be called.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ArgumentError(f"kind must be a class derived from torch.nn.Module, got {shown(kind)}; give type(layer)")
    for name, value in (("weight", weight), ("bias", bias)):
        if not (isinstance(value, str) and value.isidentifier()):
            raise ArgumentError(f"{name} must be the name of an attribute of the layer, got {shown(value)}")
    if formula is not None and not callable(formula):
        raise ArgumentError(f"formula must be a function (layer, x, weight, bias) → output, got {shown(formula)}")
    usual = transposed_product if flag("transposed", transposed) else product
    _KNOWN[kind] = LinearLayer(
        kind, formula or usual, weight, bias, bool(transposed), copies=whole_number("copies", copies, at_least=0)
    )


def _convolution(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padding = layer.padding
    if layer.padding_mode != "zeros":
        x, padding = functional.pad(x, _around(layer), layer.padding_mode), 0
    return _CONVOLVE[weight.ndim](x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)


def _around(layer: Any) -> list[int]:
    """Return how many entries are put before and after each axis, the last axis first, as `functional.pad` takes it."""
    sides: list[int] = []
    for axis in reversed(range(len(layer.kernel_size))):
        spare = layer.dilation[axis] * (layer.kernel_size[axis] - 1) if layer.padding == "same" else 0
        before, after = (
            (spare // 2, spare - spare // 2) if isinstance(layer.padding, str) else (layer.padding[axis],) * 2
        )
        sides += [before, after]
    return sides


def _convolution_back(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _CONVOLVE_BACK[weight.ndim](
        x, weight, bias, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
    )


def _convolution_of_input(layer: Any, shape: torch.Size, weight: Tensor, sent: Tensor) -> Tensor:
    batched = (1, *shape) if len(shape) == weight.ndim - 1 else shape
    out = sent.unsqueeze(0) if len(batched) != len(shape) else sent
    of_input = _OF_INPUT[weight.ndim]
    return of_input(batched, weight, out, layer.stride, layer.padding, layer.dilation, layer.groups).reshape(shape)


def _convolution_of_weight(layer: Any, x: Tensor, shape: torch.Size, sent: Tensor) -> Tensor:
    if x.ndim == len(shape) - 1:
        x, sent = x.unsqueeze(0), sent.unsqueeze(0)
    of_weight = _OF_WEIGHT[len(shape)]
    return of_weight(x, shape, sent, layer.stride, layer.padding, layer.dilation, layer.groups)


def _ensemble(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG001
    found = torch.bmm(x.expand(len(weight), -1, -1), weight.mT)
    return found if bias is None else found + bias


def _tiled(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = layer.with_kernels(x, weight, bias)
    return found


def _unrolled(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = functional.linear(x.flatten(1), weight, bias).unflatten(1, layer.out_shape)
    return found


def _linear_of_input(_layer: nn.Module, _shape: torch.Size, weight: Tensor, sent: Tensor) -> Tensor:
    return sent @ weight


def _linear_of_weight(_layer: nn.Module, x: Tensor, _shape: torch.Size, sent: Tensor) -> Tensor:
    return sent.reshape(-1, sent.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def _pads_with_zeros(layer: Any) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


_LINEAR = Gradients(lambda _layer: True, _linear_of_input, _linear_of_weight)
_CONVOLUTION = Gradients(_pads_with_zeros, _convolution_of_input, _convolution_of_weight)

_OWN: dict[type[nn.Module], LinearLayer] = {
    nn.Linear: LinearLayer(nn.Linear, gradients=_LINEAR),
    **{kind: LinearLayer(kind, _convolution, gradients=_CONVOLUTION) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)},
    **{
        kind: LinearLayer(kind, _convolution_back)
        for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    },
    EnsembleLinear: LinearLayer(EnsembleLinear, _ensemble, copies=1),
    TiledConv2d: LinearLayer(TiledConv2d, _tiled, output_axes=2),
    UnrolledConv2d: LinearLayer(UnrolledConv2d, _unrolled),
}
_KNOWN = dict(_OWN)
