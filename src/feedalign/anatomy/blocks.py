"""What a model is made of between its feedback points, seen in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy import problems
from feedalign.anatomy.error_tap import ErrorTap
from feedalign.anatomy.points import sample_axes
from feedalign.anatomy.problems import Problem
from feedalign.anatomy.tapping import tapped
from feedalign.anatomy.undisturbed import evaluating, same_state
from feedalign.anatomy.values import activation_in, activation_of, observing, one_fewer
from feedalign.anatomy.weights import gathered, weight_matrices
from feedalign.errors import ArgumentError, FeedbackShapeError, OutputError, PointsError
from feedalign.feedback import Convolution
from feedalign.geometry import Geometry

# Layers whose output has its features on the last axis, and tokens, or samples, on all others.
FEATURES_LAST = (
    nn.Linear,
    nn.Bilinear,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


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
        called: the modules among them, or around them, that were called.
        shape: of one sample at the point; its product is `features`.
        tokens: whether a sample is known to be tokens: it has several axes, and the last layer that ran puts its
            features on the last one.
        summed: how many of the output's batch axes the point does not have, as an encoder whose sequences have another
            length than those of the output.
        parts: at the output, the numbers per sample of each Tensor at which the error is taken; `features` is the sum.
    """

    point: str
    features: int
    weights: tuple[str, ...]
    preactivation: str
    modules: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    tokens: bool = False
    summed: int = 0
    parts: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The names in `weights` in one line; the point's name where there are none."""
        return ", ".join(self.weights) or self.point

    def going_with(self, called: Collection[str]) -> tuple[str, ...]:
        """Return those of `modules` that go with one of some called modules."""
        return tuple(
            name
            for name in self.modules
            if next(place for place in (name, *names_above(name)) if place in self.called) in called
        )


@torch.no_grad()
def trace(
    model: nn.Module,
    points: Sequence[str],
    tap: ErrorTap,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Block, ...]:
    """Run the model once, without gradients, and return its blocks in the order in which they ran.

    The model runs in evaluation mode. If the error cannot be taken at what it returns there, it runs in the mode that
    it is in: some models return several things in training only.

    The model then runs once more, on one sample fewer, since the shapes of one batch may agree by chance. What a model
    of sequences puts first may be time, and there may be as many graphs as nodes. A model that takes no other batch
    than the given one is believed.
    """
    try:
        with evaluating(model):
            return _checked(model, points, tap, args, kwargs)
    except OutputError:
        if not model.training:
            raise
        with same_state(model):
            return _checked(model, points, tap, args, kwargs)


def _checked(
    model: nn.Module, points: Sequence[str], tap: ErrorTap, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Block, ...]:
    blocks, samples = _trace(model, points, tap, args, kwargs)
    fewer = one_fewer(args, kwargs, samples)
    if fewer is not None:
        with same_state(model):
            try:
                _trace(model, points, tap, *fewer)
            except FeedbackShapeError as error:
                raise FeedbackShapeError(f"with {samples - 1} samples in place of {samples}, {error}") from error
            except Exception:  # of the model's own, which takes no batch of another size
                pass
    return blocks


def _trace(
    model: nn.Module, points: Sequence[str], tap: ErrorTap, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Block, ...], int]:
    """Return the blocks, and how many samples there are."""
    modules = dict(model.named_modules())
    holders = [name for name, module in modules.items() if any(True for _ in module.parameters(recurse=False))]
    ran: list[tuple[str, Any]] = []
    seen = {*points, *holders, *(above for name in holders for above in names_above(name))} - {""}
    places: list[int] = []  # how many modules had run where the error is taken

    def see(tensor: Tensor) -> Tensor:
        places.append(len(ran))
        return tensor

    with observing(model, seen, lambda name, output: ran.append((name, output))):
        _, taken = tapped(model, tap, lambda: model(*args, **kwargs), see)
    rows = tap.rows(taken)
    batch_shape = rows.shape[:-1]
    if late := [name for name, _ in ran[min(places) :] if name in points]:
        raise PointsError(f"point {problems.above_the_place(late[0], tap.places[0])}")
    if missing := [name for name in points if name not in dict(ran)]:
        raise PointsError("; ".join(f"point {problems.never_ran(name)}" for name in missing))
    # The model itself ends with its output; what is used without being called goes with the module around it that is.
    ran.append(("", rows))
    called = {name for name, _ in ran if ".parametrizations." not in f".{name}"}  # these go with what they parametrize
    going_with: dict[str, list[str]] = {}
    for name in holders:
        going_with.setdefault(next(place for place in (name, *names_above(name)) if place in called), []).append(name)
    blocks: list[Block] = []
    inside: list[tuple[str, Any]] = []
    for name, returned in ran:
        if name in going_with:
            inside.append((name, returned))
        if name in points or not name:
            activation = activation_of(name, returned)
            by_token = bool(name) and tap.batch_dims is None and features_last(inside, modules, activation)
            shape = sample_axes(name, modules[name], activation, batch_shape, by_token) if name else rows.shape[-1:]
            if isinstance(shape, Problem):
                raise FeedbackShapeError(f"point {shape}")
            summed = len(batch_shape) - (activation.ndim - len(shape))
            blocks.append(
                Block(
                    name,
                    shape.numel(),
                    tuple(n for n, _ in inside if n and weight_matrices(modules[n])),
                    _preactivation(inside, batch_shape) or name,
                    tuple(held for n, _ in inside for held in going_with.get(n, ())),
                    tuple(n for n, _ in inside),
                    tuple(shape),
                    by_token and len(shape) > 1,
                    summed,
                    () if name else tuple(tap.row(one).shape[-1] for one in taken),
                )
            )
            inside = []
    for name in points:
        widths = {b.shape[-1] if b.tokens else b.features for b in blocks if b.point == name}
        if len(widths) > 1:
            raise FeedbackShapeError(f"point {problems.several_widths(name, widths)}")
    return tuple(blocks), batch_shape[0]


def names_above(name: str) -> list[str]:
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


def features_last(inside: Sequence[tuple[str, Any]], modules: Mapping[str, nn.Module], activation: Tensor) -> bool:
    """Return whether the last layer that ran in a block puts its features on the last axis of the activation.

    `inside` has name and output of each module with parameters that ran in the block, in this order.
    """
    if not inside:
        return False
    name, returned = inside[-1]
    output = activation_in(returned)
    return isinstance(modules[name], FEATURES_LAST) and output is not None and output.shape[-1] == activation.shape[-1]


def is_chain(model: nn.Module) -> bool:
    """Return whether every way from one module of a model to the output leads through all modules that run later.

    So no skip connection goes around a module. Known are `nn.Sequential`, one within another as well, and torch's own
    modules without parts. Of any other model the answer is False, also where the model is a chain.
    """
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        return all(map(is_chain, model))
    return type(model).__module__.startswith("torch.nn.modules.") and next(model.children(), None) is None


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
    return Convolution(below.point, block.point, gathered(kernels[0]), geometry)
