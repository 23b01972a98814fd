"""Padding that nobody has named: an input of zeros and ones that marks tokens on which the output does not depend."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy.error_tap import ErrorTap
from feedalign.anatomy.hooks import evaluating, observing
from feedalign.anatomy.masks import InputMask, InputMasks
from feedalign.anatomy.tapping import tapped
from feedalign.anatomy.undisturbed import same_state
from feedalign.anatomy.values import activation_of, exchange


class MaskSearch:
    """Looks for the input that marks padding, batch after batch, until a batch with padding has shown it.

    An input may mark padding if it is [batch, token] and holds zeros and ones alone. Whether it does, the true gradient
    says: backprop sends padding nothing.

    Args:
        model: the bare model.

    Attributes:
        possible: names of the inputs that may mark padding, as far as is known.
    """

    def __init__(self, model: nn.Module) -> None:
        by_name = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        inputs = inspect.signature(model.forward).parameters.values()
        self.by_position = [one.name for one in inputs if one.kind in by_name]
        self.possible = {*self.by_position, *(one.name for one in inputs if one.kind is inspect.Parameter.KEYWORD_ONLY)}

    def marks(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the inputs that mark something in this batch, and may be padding, by name. Each is returned once."""
        named = {**dict(zip(self.by_position, args)), **kwargs}  # noqa: B905 — not all inputs are given by position
        given = {name: value for name, value in named.items() if name in self.possible and value is not None}
        marks = {name: value for name, value in given.items() if _is_mark(value)}
        parted = {name: mark for name, mark in marks.items() if bool((mark != 0).any()) and bool((mark == 0).any())}
        self.possible -= (given.keys() - marks.keys()) | parted.keys()
        return parted


def _is_mark(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.ndim != 2:
        return False
    return value.dtype == torch.bool or bool(((value == 0) | (value == 1)).all())


def padding_mask(
    model: nn.Module,
    points: Sequence[str],
    tap: ErrorTap,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    marks: Mapping[str, Tensor],
) -> InputMasks | None:
    """Return the mask of the points whose tokens an input marks; None if the true gradient bears no input out.

    The output must depend on every token that is real, at some of these points, and at none of them on padding.

    Args:
        model: the bare model.
        points: names of the feedback points.
        tap: where the error is taken.
        args: inputs by position.
        kwargs: inputs by keyword.
        marks: the inputs in question, by name, [batch, token].
    """
    try:
        reached = _reached(model, points, tap, args, kwargs)
    except Exception:  # the search is a guess; what is wrong with the model the pass itself will tell
        return None
    for name, mark in marks.items():
        marked = {point: runs for point, runs in reached.items() if all(run.shape == mark.shape for run in runs)}
        if marked:
            used = torch.stack([run for runs in marked.values() for run in runs]).any(0)
            for marks_padding in (False, True):
                if torch.equal(used, (mark != 0) != marks_padding):
                    mask = dataclasses.replace(InputMask.of(model, name), marks_padding=marks_padding)
                    return InputMasks(of_points=dict.fromkeys(marked, mask))
    return None


def _reached(
    model: nn.Module, points: Sequence[str], tap: ErrorTap, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, list[Tensor]]:
    """Return at which tokens the true gradient is not zero, [batch, token], for every run of every point."""
    places: list[tuple[str, Tensor]] = []

    def see(name: str, output: Any) -> Any:
        activation = activation_of(name, output)
        place = activation if activation.requires_grad else activation.detach().requires_grad_()
        places.append((name, place))
        return exchange(output, activation, place.clone())  # a copy: what follows may change it in place

    with same_state(model), evaluating(model), torch.enable_grad(), observing(model, points, see):
        _, taken = tapped(model, tap, lambda: model(*args, **kwargs), training=False)
    outputs = tap.rows(taken)
    # Different weights: the sum of the outputs of a softmax depends on nothing.
    weights = torch.linspace(1, 2, outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
    gradients = torch.autograd.grad((outputs * weights).sum(), [place for _, place in places], materialize_grads=True)
    reached: dict[str, list[Tensor]] = {}
    for (name, _), gradient in zip(places, gradients, strict=True):
        if gradient.ndim > 2:  # one without a token axis is sent feedback as a whole
            reached.setdefault(name, []).append((gradient != 0).flatten(2).any(-1))
    return reached
