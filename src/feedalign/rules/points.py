"""Feedback points: which modules' outputs are hidden activations, and what lies between one point and the next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from feedalign.errors import ArgumentError, FeedbackShapeError, PointsError
from feedalign.feedback import Convolution
from feedalign.geometry import Geometry
from feedalign.rules import problems
from feedalign.rules.hooks import observing
from feedalign.rules.outputs import ErrorTap, activation_in, exchange


@dataclass(frozen=True)
class Block:
    """What runs between one feedback point and the next, or between the last point and the output.

    Attributes:
        point: dotted name of the module whose output ends the block; "" for the output itself.
        features: numbers per sample at that point (at the output: C).
        weights: dotted names of the modules in the block that hold a weight matrix, in the order they ran.
        preactivation: dotted name of the last module in the block that holds parameters: its output is a_l, what
            the activation is applied to. The point itself where nothing in the block holds any, or where that output
            is not of every sample, as that of embedded positions.
        modules: dotted names of the modules in the block that hold any parameter of their own, in the order they ran.
            What is used but never called itself, such as the output projection of `nn.MultiheadAttention`, goes with
            the module around it, and parameters of the model itself, "", with the last block.
        shape: of one sample at the point; its product is `features`.
    """

    point: str
    features: int
    weights: tuple[str, ...]
    preactivation: str
    modules: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()


def weight_matrices(module: nn.Module) -> list[Tensor]:
    """Return the matrices and kernels the module itself, not its children, holds; biases never count as such.

    A parametrized weight counts as what it is in evaluation mode, and nothing of what it is made from.
    """
    if isinstance(module, parametrize.ParametrizationList):
        return []
    held = dict(module.named_parameters(recurse=False))
    for name, parametrization in getattr(module, "parametrizations", {}).items():
        with evaluating(parametrization):
            held[name] = parametrization()
    # An ensemble's biases have several axes too.
    return [tensor for name, tensor in held.items() if tensor.ndim >= 2 and not name.startswith("bias")]


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
            f"the names of the modules whose outputs are the hidden activations, from: {problems.listed(model)}"
        )
    children = [(name, child) for name, child in model._modules.items() if child is not None]
    weighted = [i for i, (_, child) in enumerate(children) if any(map(weight_matrices, child.modules()))]
    if len(weighted) < 2:
        raise PointsError(
            f"found no hidden layer: {len(weighted)} of the {len(children)} modules of this nn.Sequential hold a "
            "weight matrix, and a feedback point lies between two of them"
        )
    # An activation that stands in several places is one module, and goes by the name of the first.
    first = {child: name for name, child in reversed(children)}
    return tuple(dict.fromkeys(first[children[i - 1][1]] for i in weighted[1:]))


def names_of(model: nn.Module, points: str | Iterable[str]) -> tuple[str, ...]:
    """Return the points as a tuple of names, "auto" looked up; PointsError if there are none."""
    if points == "auto":
        return automatic_points(model)
    names = (points,) if isinstance(points, str) else tuple(points)
    if not names:
        raise PointsError(f"points is empty; give at least one hidden activation, from: {problems.listed(model)}")
    return names


def check_points(model: nn.Module, points: str | Iterable[str]) -> tuple[str, ...]:
    """Return the points as a tuple of known, distinct names of modules; PointsError lists every other one."""
    names = names_of(model, points)
    if wrong := name_problems(model, names):
        raise PointsError("; ".join(f"point {problem}" for problem in wrong))
    return names


def name_problems(model: nn.Module, names: Sequence[str]) -> list[problems.Problem]:
    """Return what is wrong with names alone: those given twice, and those the model does not have."""
    known = dict(model.named_modules())
    return [
        *(problems.repeated_point(name) for name in dict.fromkeys(names) if names.count(name) > 1),
        *(problems.unknown_point(name, model) for name in dict.fromkeys(names) if name not in known or not name),
    ]


def activation_of(name: str, output: object) -> Tensor:
    """Return the activation of a point from what its module gave; an error if there is none in it."""
    activation = activation_in(output)
    if activation is None:
        raise PointsError(f"point {problems.no_tensor(name, output)}")
    return activation


def axes_problem(
    name: str, module: nn.Module, activation: Tensor, batch_shape: Sequence[int]
) -> problems.Problem | None:
    """Return what is wrong with the axes of an activation, which must be [*batch, ...] with the output's batch axes."""
    if activation.shape[: len(batch_shape)] != tuple(batch_shape) or activation.ndim <= len(batch_shape):
        return problems.other_batch_axes(name, activation, batch_shape)
    # Where sequences are as long as the batch is large, their shape does not show it.
    recurrent = isinstance(module, nn.RNNBase | nn.MultiheadAttention) and not module.batch_first
    return problems.time_first(name, module) if recurrent and len(batch_shape) == 1 else None


@torch.no_grad()
def trace(
    model: nn.Module,
    points: Sequence[str],
    tap: ErrorTap,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Block, ...]:
    """Run the model once, in evaluation mode and without gradients, and return its blocks in the order they ran."""
    modules = dict(model.named_modules())
    holders = [name for name, module in modules.items() if any(True for _ in module.parameters(recurse=False))]
    ran: list[tuple[str, Any]] = []
    seen = {*points, *holders, *(above for name in holders for above in _above(name))} - {""}
    with evaluating(model), observing(model, seen, lambda name, output: ran.append((name, output))):
        output = model(*args, **kwargs)
    tapped = tap.of(output)
    batch_shape = tap.batch_shape(tapped)
    if missing := [name for name in points if name not in dict(ran)]:
        raise PointsError("; ".join(f"point {problems.never_ran(name)}" for name in missing))
    # The model itself ends with its output; what is used without being called goes with the module around it that is.
    ran.append(("", tap.rows(tapped)))
    called = {name for name, _ in ran if _parametrized(name) == name}
    going_with: dict[str, list[str]] = {}
    for name in holders:
        going_with.setdefault(next(place for place in (name, *_above(name)) if place in called), []).append(name)
    blocks: list[Block] = []
    inside: list[tuple[str, Any]] = []
    for name, returned in ran:
        if name in going_with:
            inside.append((name, returned))
        if name in points or not name:
            activation = activation_of(name, returned)
            if name and (wrong := axes_problem(name, modules[name], activation, batch_shape)):
                raise FeedbackShapeError(f"point {wrong}")
            shape = activation.shape[len(batch_shape) :]
            blocks.append(
                Block(
                    name,
                    shape.numel(),
                    tuple(n for n, _ in inside if n and weight_matrices(modules[n])),
                    _preactivation(inside, batch_shape) or name,
                    tuple(held for n, _ in inside for held in going_with.get(n, ())),
                    tuple(shape),
                )
            )
            inside = []
    for name in points:
        if len(widths := {block.features for block in blocks if block.point == name}) > 1:
            raise FeedbackShapeError(f"point {problems.several_widths(name, widths)}")
    return tuple(blocks)


def _parametrized(name: str) -> str:
    """Return the name of the module whose parametrization a module is; of any other, its own."""
    return f".{name}".partition(".parametrizations.")[0].removeprefix(".")


def _above(name: str) -> list[str]:
    """Return the names of the modules around a module, the nearest first and the model itself, "", last."""
    above = []
    while name:
        name = name.rpartition(".")[0]
        above.append(name)
    return above


def _preactivation(inside: Sequence[tuple[str, Any]], batch_shape: torch.Size) -> str | None:
    """Return the last module of a block, unless what it gives is for all samples, such as embedded positions."""
    if not inside:
        return None
    name, returned = inside[-1]
    output = activation_in(returned)
    fits = output is not None and output.ndim > len(batch_shape) and output.shape[: len(batch_shape)] == batch_shape
    return name if fits else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this context every part of the model is in evaluation mode."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def mean_jacobians(
    model: nn.Module,
    points: Sequence[str],
    tap: ErrorTap,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Return the mean over the batch of ∂output/∂h at each point, [outputs, features], in evaluation mode.

    One backward pass an output. Where a point runs several times its Jacobians add up, as the signals do.

    Raises:
        PointsError: nothing of a point's activation reaches the output.
    """
    places: list[tuple[str, Tensor]] = []

    def see(name: str, output: Any) -> Any:
        activation = activation_of(name, output)
        # Of a point below a frozen block nothing would carry a gradient.
        place = activation if activation.requires_grad else activation.detach().requires_grad_()
        places.append((name, place))
        return exchange(output, activation, place.clone())  # so that nothing after the point works on it in place

    with evaluating(model), torch.enable_grad(), observing(model, points, see):
        output = model(*args, **kwargs)
    tapped = tap.of(output)
    batch = tap.batch_shape(tapped).numel()
    rows: dict[str, list[Tensor]] = {name: [] for name in points}
    for total in tap.rows(tapped).flatten(0, -2).sum(0):
        gradients = torch.autograd.grad(total, [place for _, place in places], retain_graph=True, allow_unused=True)
        here = dict.fromkeys(points, torch.zeros(()))
        for (name, _), gradient in zip(places, gradients, strict=True):
            if gradient is not None:
                here[name] = here[name] + gradient.reshape(batch, -1).mean(0)
        for name, row in here.items():
            if not row.ndim:
                raise PointsError(f"point {problems.nothing_reaches_the_output(name)}")
            rows[name].append(row)
    return {name: torch.stack(of_point) for name, of_point in rows.items()}


def convolution_between(below: Block, block: Block, modules: Mapping[str, nn.Module]) -> Convolution | str:
    """Return the convolution from one point to the next, or why there is none: it must be the only weights there.

    Besides `nn.Conv2d` that is any module with one weight and a `geometry` that says its shape.
    """
    holding = [modules[name] for name in block.weights]
    kernels = [matrix for module in holding for matrix in weight_matrices(module)]
    if len(kernels) != 1:
        return f"the block holds {len(kernels)} weight matrices, the angle is defined for one"
    (layer,) = holding
    geometry = getattr(layer, "geometry", None)
    if isinstance(layer, nn.Conv2d):
        if len(below.shape) != 3:
            return f"the point below it gives no image, but {below.shape}"
        try:
            geometry = Geometry.of(layer, (below.shape[0], below.shape[1], below.shape[2]))
        except ArgumentError as error:
            return str(error)
    if not isinstance(geometry, Geometry):
        return f"weights of shape {tuple(kernels[0].shape)} are no matrix between its points, nor a 2-D convolution"
    if math.prod(geometry.out_shape) != block.features or math.prod(geometry.in_shape) != below.features:
        return (
            f"the convolution takes {geometry.in_shape} to {geometry.out_shape}, but its points have {below.shape} and "
            f"{block.shape}; the angle is defined without pooling in between"
        )
    return Convolution(below.point, block.point, kernels[0], geometry)
