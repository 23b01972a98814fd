"""Names of feedback points: the modules whose outputs are the hidden activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def axes_missing(activation: Tensor, batch_shape: Sequence[int]) -> int:
    """Return how many of the output's last batch axes an activation [*batch, tokens, features] does not have.

    A sequence of another length than the output's has the samples in common with it, and not the tokens. Axes are
    missing only if the first axis is common, and if the activation has an axis of tokens of its own.
    """
    common = 0
    while common < len(batch_shape) and activation.shape[common : common + 1] == (batch_shape[common],):
        common += 1
    has_tokens = 0 < common <= activation.ndim - 2
    return len(batch_shape) - common if has_tokens else 0


def axes_problem(name: str, module: nn.Module, activation: Tensor, batch_shape: Sequence[int]) -> Problem | None:
    """Return what is wrong with the axes of an activation, which must be [*batch, ...] with the output's batch axes."""
    if activation.shape[: len(batch_shape)] != tuple(batch_shape) or activation.ndim <= len(batch_shape):
        return problems.other_batch_axes(name, activation, batch_shape)
    # Where sequences are as long as the batch is large, their shape does not show it.
    return problems.time_first(name, module) if len(batch_shape) == 1 and _begins_with_time(module) else None


def _begins_with_time(module: nn.Module) -> bool:
    """Return whether the outputs of one of torch's modules for sequences are [time, batch, ...]."""
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return not module.batch_first
    layers = nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.TransformerEncoder, nn.TransformerDecoder
    if isinstance(module, (*layers, nn.Transformer)):
        return any(isinstance(part, nn.MultiheadAttention) and not part.batch_first for part in module.modules())
    return False
