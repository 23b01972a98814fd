"""A convolution as the dense matrix it is, and back; a convolutional net as its dense and locally connected equals."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional, grad

from feedalign.checks import instance_of, whole_number, whole_numbers
from feedalign.errors import ArgumentError, FeedalignError
from feedalign.geometry import Geometry
from feedalign.networks.tiled import TiledConv2d

Shape = tuple[int, int, int]


def unroll(convolution: nn.Conv2d, in_shape: Shape) -> Float[Tensor, "outputs inputs"]:
    """Return the block-Toeplitz matrix W with W · flatten(x) = flatten(convolution(x)), without the bias.

    Args:
        convolution: any stride, padding with zeros, dilation and groups.
        in_shape: (channels, height, width) of its input.

    Returns:
        [o·p, i·q], channels first, as `flatten()` orders them.

    Raises:
        ArgumentError: the convolution is no `Conv2d`, or does not fit in_shape (see `feedalign.geometry.Geometry.of`).
    """
    shape = _geometry(convolution, in_shape)
    inputs, weight = _every_input(convolution, in_shape), convolution.weight
    outputs = functional.conv2d(inputs, weight, None, shape.stride, shape.padding, shape.dilation, shape.groups)
    return outputs.flatten(1).T


def roll(
    matrix: Float[Tensor, "outputs inputs"], convolution: nn.Conv2d, in_shape: Shape
) -> Float[Tensor, "out channels height width"]:
    """Return the kernel whose unrolled matrix is nearest to `matrix`: the mean of each tap's entries.

    `roll(unroll(convolution, in_shape), convolution, in_shape)` is the convolution's weight. A tap that only reads
    padding is 0.

    Args:
        matrix: [o·p, i·q].
        convolution: gives the shape; its weight does not matter.
        in_shape: (channels, height, width) of its input.

    Raises:
        ArgumentError: the convolution is no `Conv2d`, does not fit in_shape, or the matrix has another shape.
    """
    geometry = _geometry(convolution, in_shape)
    instance_of("matrix", matrix, Tensor)
    expected = (math.prod(geometry.out_shape), math.prod(in_shape))
    if tuple(matrix.shape) != expected:
        raise ArgumentError(f"matrix has shape {tuple(matrix.shape)}, expected {expected}, features out by features in")
    inputs = _every_input(convolution, in_shape).to(matrix)
    weight, settings = convolution.weight, (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    ones = functional.conv2d(inputs, torch.ones_like(weight).to(matrix), None, *settings)
    sides = (matrix.T.reshape(ones.shape), ones)
    # For each tap, the sum of outputs over the positions that read an input that is on.
    sums, counts = (grad.conv2d_weight(inputs, weight.shape, outputs, *settings) for outputs in sides)
    kernel: Tensor = sums / counts.clamp(min=1)
    return kernel


class UnrolledConv2d(nn.Linear):
    """A dense layer between images that begins as a convolution.

    Its weights are all free to learn: those that are zero in the convolution, and those that are equal there.

    Args:
        convolution: gives the initial weight [o·p, i·q], and a bias for each unit if it has one.
        in_shape: (channels, height, width) of the input.
    """

    def __init__(self, convolution: nn.Conv2d, in_shape: Shape) -> None:
        weight = unroll(convolution, in_shape).detach()
        outputs, inputs = weight.shape
        super().__init__(inputs, outputs, bias=convolution.bias is not None, device="meta")
        self.out_shape = _geometry(convolution, in_shape).out_shape
        self.weight = nn.Parameter(weight.contiguous())
        if convolution.bias is not None:
            self.bias = nn.Parameter(convolution.bias.detach().repeat_interleave(math.prod(self.out_shape[1:])))

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out rows columns"]:
        """Apply to flattened images."""
        output: Tensor = super().forward(input.flatten(1)).unflatten(1, self.out_shape)
        return output


def dense(model: nn.Module, in_shape: Shape) -> nn.Module:
    """Return a copy in which every `Conv2d` is the dense layer that it unrolls to; the copy is the same function.

    Memory: features in times features out of every layer.

    Args:
        model: any module in which every convolution sees inputs of one shape only; it is not changed.
        in_shape: (channels, height, width) of the model's input.

    Raises:
        ArgumentError: the model does not run on such images, no `Conv2d` runs in it, one runs on inputs of two shapes,
            or one cannot be unrolled (see `unroll`).
    """
    return _replaced(model, in_shape, UnrolledConv2d)


def locally_connected(model: nn.Module, in_shape: Shape, regions: int | None = None) -> nn.Module:
    """Return a copy in which every `Conv2d` keeps its connections but shares no weights; the same function at first.

    Args:
        model: any module in which every convolution sees inputs of one shape only; it is not changed.
        in_shape: (channels, height, width) of the model's input.
        regions: number of regions along each axis within which weights are still shared, see `TiledConv2d`; where the
            output is smaller, every position is a region. Unless given, no two positions share weights.

    Raises:
        ArgumentError: the model does not run on such images, no `Conv2d` runs in it, one runs on inputs of two shapes,
            or the regions do not divide a layer's output.
    """
    if regions is not None:
        regions = whole_number("regions", regions, 1)

    def tiled(convolution: nn.Conv2d, shape: Shape) -> nn.Module:
        height, width = _geometry(convolution, shape).out_shape[1:]
        most = (height, width) if regions is None else (min(regions, height), min(regions, width))
        return TiledConv2d(convolution, shape, most)

    return _replaced(model, in_shape, tiled)


def _replaced(model: nn.Module, in_shape: Shape, layer: Callable[[nn.Conv2d, Shape], nn.Module]) -> nn.Module:
    instance_of("model", model, nn.Module)
    if isinstance(model, nn.Conv2d):
        return layer(model, in_shape).train(model.training)
    changed = copy.deepcopy(model)
    for name, shape in _input_shapes(copy.deepcopy(model).eval(), in_shape).items():
        parent, _, child = name.rpartition(".")
        convolution: Any = changed.get_submodule(name)
        setattr(changed.get_submodule(parent), child, layer(convolution, shape).train(convolution.training))
    return changed


def _input_shapes(model: nn.Module, in_shape: Shape) -> dict[str, Shape]:
    """Run a model once on zeros, and return the shape that each convolution sees, by dotted name; hooks stay on it."""
    sizes = whole_numbers("in_shape", in_shape, 1, length=3)
    shapes: dict[str, Shape] = {}

    def see(name: str, inputs: tuple[Any, ...]) -> None:
        shape: Shape = tuple(inputs[0].shape[1:])
        if shapes.setdefault(name, shape) != shape:
            raise ArgumentError(f"{name!r} runs on inputs of {shapes[name]} and of {shape}, so it is not one matrix")

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _module, inputs, name=name: see(name, inputs))
    like = next(model.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            model(like.new_zeros(1, *sizes))
    except FeedalignError:
        raise
    except Exception as error:  # the model is the user's, and may raise anything
        raise ArgumentError(
            f"this {type(model).__name__} does not run on one image of in_shape={tuple(sizes)}: {error}"
        ) from error
    if not shapes:
        raise ArgumentError(f"no Conv2d ran in this {type(model).__name__}, so there is nothing to unroll")
    return shapes


def _geometry(convolution: nn.Conv2d, in_shape: Shape) -> Geometry:
    return Geometry.of(instance_of("convolution", convolution, nn.Conv2d), in_shape)


def _every_input(convolution: nn.Conv2d, in_shape: Shape) -> Tensor:
    """Return every image with one pixel of one channel on, [i·q, channels, height, width]."""
    weight = convolution.weight
    return torch.eye(math.prod(in_shape), dtype=weight.dtype, device=weight.device).reshape(-1, *in_shape)
