"""Names of feedback points: the modules whose outputs are the hidden activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from feedalign.anatomy import problems
from feedalign.anatomy.problems import Problem
from feedalign.anatomy.weights import weight_matrices
from feedalign.checks import names_in
from feedalign.errors import PointsError


def automatic_points(model: nn.Module) -> tuple[str, ...]:
    """Return the points of an `nn.Sequential`: the last child before each child with weights, but for the first.

    So every activation, normalisation, pooling or dropout stays in the block of the weights it follows. PointsError if
    the model is no `nn.Sequential` (then the message lists the names to choose from), or has no hidden layer.
    """
    if not isinstance(model, nn.Sequential):
        raise PointsError(
            f'points="auto" can read nn.Sequential and feedalign.networks, not {type(model).__name__}; give points=, '
            f"the names of the modules whose outputs are the hidden activations, from: {problems.listed(model)}"
        )
    # An activation that stands in several places is there under each of its names.
    every = model.named_modules(remove_duplicate=False)
    children = [(name, child) for name, child in every if name and "." not in name]
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
    """Return the points as a tuple of names, "auto" looked up; PointsError if there is none."""
    if isinstance(points, str):
        return automatic_points(model) if points == "auto" else (points,)
    names = names_in("points", points, sum(1 for _ in model.named_modules(remove_duplicate=False)))
    if not names:
        raise PointsError(f"points is empty; give at least one hidden activation, from: {problems.listed(model)}")
    return names


def check_points(model: nn.Module, points: str | Iterable[str]) -> tuple[str, ...]:
    """Return the points as a tuple of known, distinct names of modules; PointsError lists every other one."""
    names = names_of(model, points)
    if wrong := name_problems(model, names):
        raise PointsError("; ".join(f"point {problem}" for problem in wrong))
    return names


def name_problems(model: nn.Module, names: Sequence[str]) -> list[Problem]:
    """Return what is wrong with names alone: those given twice, and those the model does not have."""
    known = dict(model.named_modules())
    return [
        *(problems.repeated_point(name) for name in dict.fromkeys(names) if names.count(name) > 1),
        *(problems.unknown_point(name, model) for name in dict.fromkeys(names) if name not in known or not name),
    ]


def sample_axes(
    name: str, module: nn.Module, activation: Tensor, batch_shape: torch.Size, by_token: bool
) -> torch.Size | Problem:
    """Return the shape of one sample of a point's activation, or what is wrong with the activation's axes.

    An activation is [*batch, ...], with the batch axes of the output. An activation [*batch, tokens, features] of which
    `by_token` is known may lack the last of these batch axes: a sequence of another length than the output's has the
    samples in common with the output, and not the tokens. At least the first axis must be common.
    """
    common = 0
    while common < len(batch_shape) and activation.shape[common : common + 1] == (batch_shape[common],):
        common += 1
    if by_token and 0 < common <= activation.ndim - 2:
        batch_shape = batch_shape[:common]
    if common < len(batch_shape) or activation.ndim <= len(batch_shape):
        return problems.other_batch_axes(name, activation, batch_shape)
    # Where sequences are as long as the batch is large, their shape does not show it.
    if len(batch_shape) == 1 and _begins_with_time(module):
        return problems.time_first(name, module)
    return activation.shape[len(batch_shape) :]


def _begins_with_time(module: nn.Module) -> bool:
    """Return whether the outputs of one of torch's modules for sequences are [time, batch, ...]."""
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return not module.batch_first
    layers = nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.TransformerEncoder, nn.TransformerDecoder
    if isinstance(module, (*layers, nn.Transformer)):
        return any(isinstance(part, nn.MultiheadAttention) and not part.batch_first for part in module.modules())
    return False
