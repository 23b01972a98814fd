"""Feedback points: which modules' outputs are hidden activations, and what lies between one point and the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.errors import FeedbackShapeError, OutputError, PointsError


@dataclass(frozen=True)
class Block:
    """What runs between one feedback point and the next, or between the last point and the output.

    Attributes:
        point: dotted name of the module whose output ends the block; "" for the output itself.
        features: numbers per sample at that point (at the output: C).
        weights: dotted names of the modules in the block that hold a weight matrix, in the order they ran.
        preactivation: dotted name of the last module in the block that holds parameters: its output is a_l, what
            the activation is applied to. The point itself where nothing in the block holds any.
        modules: dotted names of the modules in the block that hold any parameter of their own, in the order they ran.
        shape: of one sample at the point; its product is `features`.
    """

    point: str
    features: int
    weights: tuple[str, ...]
    preactivation: str
    modules: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()


def weight_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Return the matrices and kernels the module itself, not its children, holds; biases never count as such."""
    return [
        parameter
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2 and not name.startswith("bias")  # an ensemble's biases have several axes too
    ]


def automatic_points(model: nn.Module) -> tuple[str, ...]:
    """Return the points of an `nn.Sequential`: the last child before each child with weights, but for the first.

    So every activation, normalisation, pooling or dropout stays in the block of the weights it follows.

    Raises:
        PointsError: the model is not an `nn.Sequential` (then the message lists the names to choose from), or it has
            no hidden layer.
    """
    if not isinstance(model, nn.Sequential):
        raise PointsError(
            f'points="auto" can read nn.Sequential and feedalign.networks, not {type(model).__name__}; give points=, '
            f"the names of the modules whose outputs are the hidden activations, from: {_listed(model)}"
        )
    children = list(model.named_children())
    weighted = [i for i, (_, child) in enumerate(children) if any(map(weight_matrices, child.modules()))]
    if len(weighted) < 2:
        raise PointsError(
            f"found no hidden layer: {len(weighted)} of the {len(children)} modules of this nn.Sequential hold a "
            "weight matrix, and a feedback point lies between two of them"
        )
    return tuple(children[i - 1][0] for i in weighted[1:])


def check_points(model: nn.Module, points: str | Iterable[str]) -> tuple[str, ...]:
    """Return the points as a tuple of known, distinct names of modules; PointsError lists every other one."""
    if points == "auto":
        return automatic_points(model)
    names = (points,) if isinstance(points, str) else tuple(points)
    if not names:
        raise PointsError(f"points is empty; give at least one hidden activation, from: {_listed(model)}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise PointsError(f"points given twice: {', '.join(repeated)}; name each once")
    unknown = [name for name in names if name not in dict(model.named_modules()) or not name]
    if unknown:
        raise PointsError(
            f"points the model does not have: {', '.join(map(repr, unknown))}; choose from: {_listed(model)}"
        )
    return names


def features_at(name: str, activation: object, batch_shape: Sequence[int]) -> int:
    """Return the numbers per sample of an activation [*batch, ...]; an error if it is no such Tensor."""
    if not isinstance(activation, Tensor):
        raise PointsError(
            f"point {name!r} gives a {type(activation).__name__}, expected one Tensor; choose another point"
        )
    if activation.shape[: len(batch_shape)] != tuple(batch_shape) or activation.ndim <= len(batch_shape):
        raise FeedbackShapeError(
            f"point {name!r} has shape {tuple(activation.shape)}, but the output has the batch axes "
            f"{tuple(batch_shape)}; a point must begin with the same batch axes and have features after them"
        )
    return math.prod(activation.shape[len(batch_shape) :])


def batch_shape_of(output: object) -> torch.Size:
    """Return the batch axes of an output [*batch, C]; OutputError if it is nothing an error can be taken of."""
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 2:
        got = f"shape {tuple(output.shape)} of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
        raise OutputError(f"the model's output must be a floating-point Tensor [*batch, outputs], got {got}")
    return output.shape[:-1]


@contextmanager
def observing(model: nn.Module, names: Iterable[str], see: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call see(name, output) each time a named module has run; what it returns, if anything, replaces the output."""
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _module, _inputs, output, name=name: see(name, output))
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def trace(
    model: nn.Module, points: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Block, ...]:
    """Run the model once, in evaluation mode and without gradients, and return its blocks in the order they ran."""
    holders = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    weights = {name for name in holders if weight_matrices(dict(model.named_modules())[name])}
    ran: list[tuple[str, Any]] = []
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with observing(model, dict.fromkeys([*holders, *points]), lambda name, output: ran.append((name, output))):
            output = model(*args, **kwargs)
    finally:
        for module, mode in training.items():
            module.training = mode
    batch_shape = batch_shape_of(output)
    missing = [name for name in points if name not in dict(ran)]
    if missing:
        raise PointsError(
            f"points that never ran in a forward pass: {', '.join(missing)}; choose modules the model calls"
        )
    blocks: list[Block] = []
    inside: list[str] = []
    for name, activation in [*ran, ("", output)]:
        if name in holders:
            inside.append(name)
        if name in points or not name:
            features = features_at(name, activation, batch_shape)
            holding = tuple(n for n in inside if n in weights)
            shape = tuple(activation.shape[len(batch_shape) :])
            blocks.append(Block(name, features, holding, (inside or [name])[-1], tuple(inside), shape))
            inside = []
    return tuple(blocks)


def mean_jacobians(
    model: nn.Module, points: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Tensor]:
    """Return the mean over the batch of ∂output/∂h at each point, [outputs, features], in evaluation mode.

    One backward pass an output. Where a point runs several times its Jacobians add up, as the signals do.
    """
    places: list[tuple[str, Tensor]] = []

    def see(name: str, activation: Tensor) -> Tensor:
        # Of a point below a frozen block nothing would carry a gradient.
        place = activation if activation.requires_grad else activation.detach().requires_grad_()
        places.append((name, place))
        return place.clone()  # so that nothing after the point works on it in place

    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad(), observing(model, points, see):
            output = model(*args, **kwargs)
    finally:
        for module, mode in training.items():
            module.training = mode
    batch = batch_shape_of(output).numel()
    rows: dict[str, list[Tensor]] = {name: [] for name in points}
    for total in output.flatten(0, -2).sum(0):
        gradients = torch.autograd.grad(total, [place for _, place in places], retain_graph=True)
        here = {name: torch.zeros(()) for name in points}
        for (name, _), gradient in zip(places, gradients, strict=True):
            here[name] = here[name] + gradient.reshape(batch, -1).mean(0)
        for name, row in here.items():
            rows[name].append(row)
    return {name: torch.stack(of_point) for name, of_point in rows.items()}


def _listed(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_modules() if name) or "(it has no named modules)"
