"""Padding that nobody has named is found by asking the model: a token is marked as padding, and loses its gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from feedalign.anatomy.error_tap import ErrorTap
from feedalign.anatomy.hooks import evaluating, observing
from feedalign.anatomy.padding_marks import Convention, UnnamedPadding, conventions, input_tensors, marks_tokens
from feedalign.anatomy.tapping import tapped
from feedalign.anatomy.undisturbed import same_state
from feedalign.anatomy.values import activation_in, exchange, mapped

SAMPLES = 2  # of the batch are enough, and a graph of the whole model is kept for no more

Used = dict[str, list[Tensor]]  # by module, for every run: whether the output depends on a token, [batch, token]


def find_padding(
    known: UnnamedPadding, model: nn.Module, tap: ErrorTap, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> UnnamedPadding:
    """Return what is known of a model's padding after a look at those inputs that were not there before.

    An input is the mask of a point if the true gradient says so in two passes that differ in nothing but this input:
    a token that the output depends on is marked as padding, and then the output does not depend on it any more. Where
    the output depends on padding in either of the passes, as below a convolution over tokens, the input is no mask.

    Args:
        known: what is known by now.
        model: the bare model.
        tap: where the error is taken.
        args: inputs by position.
        kwargs: inputs by keyword.
    """
    given = input_tensors(known.names, args, kwargs)
    new = [key for key, one in given.items() if key not in known.seen and marks_tokens(one) and not one.is_meta]
    fillers = [0, *(m.padding_idx for m in model.modules() if isinstance(m, nn.Embedding) and m.padding_idx)]
    marks = dict(known.marks)
    for key in new:
        for convention in conventions(key, given[key], list(dict.fromkeys(fillers))):
            found = _masked_points(known, model, tap, (args, kwargs), convention)
            for point in found:
                marks[point] = (*marks.get(point, ()), convention.mark)
            if found:
                break
    return dataclasses.replace(known, seen=known.seen | frozenset(new), marks=marks)


def _masked_points(
    known: UnnamedPadding, model: nn.Module, tap: ErrorTap, inputs: tuple[Any, Any], convention: Convention
) -> list[str]:
    """Return the points at which an input of this convention marks padding; all samples are asked if few fail."""
    samples = len(input_tensors(known.names, *inputs)[convention.mark.key])
    for few in (SAMPLES, samples):
        # Each Tensor becomes another object, so that the same one given twice can be exchanged once.
        args, kwargs = mapped(inputs, lambda one: one[:few] if one.ndim and len(one) == samples else one)  # noqa: B023
        given = input_tensors(known.names, args, kwargs)[convention.mark.key]

        def run(value: Tensor) -> Used:
            new = exchange((args, kwargs), given, value.reshape(given.shape))  # noqa: B023
            return _used(model, tap, *new)

        try:
            return _asked(run, known.points, given.flatten(1), convention)
        except Exception:  # a model may take no other batch; what is wrong with it the pass itself tells
            continue
    return []


def _asked(run: Callable[[Tensor], Used], points: Sequence[str], given: Tensor, convention: Convention) -> list[str]:
    mark, real = convention.mark, convention.mark.real(given)
    empty = real.sum(1, keepdim=True) < 2  # nothing can be marked in a sample that is all padding
    given = torch.where(empty, torch.full_like(given, convention.real), given)
    real = mark.real(given)
    before = run(given)
    for padding in (_second_half(real), _every_second(real)):
        try:
            after = run(given.masked_fill(padding, convention.padding))
        except Exception:  # a model may take no padding at these tokens
            continue
        if found := _told(before, after, points, real, padding):
            return found
    return []


def _told(before: Used, after: Used, points: Sequence[str], real: Tensor, padding: Tensor) -> list[str]:
    """Return the points at which the output no longer depends on tokens, once they are marked as padding.

    Other points are masked too if they have nothing to do with padding, and the same holds of every module. Those are
    the last block, say, of which the output depends on the first token alone.
    """
    clean, shown = {}, set()
    for name in before.keys() & after.keys():
        if all(run.shape == real.shape for run in [*before[name], *after[name]]):
            first, then = (torch.stack(used[name]).any(0) for used in (before, after))
            clean[name] = not bool((first & ~real).any() or (then & ~(real & ~padding)).any())
            if clean[name] and bool((first & padding).any()):
                shown.add(name)
    if not shown:
        return []
    return [name for name in points if name in shown or (name in clean and all(clean.values()))]


def _second_half(real: Tensor) -> Tensor:
    """Return the second half of the real tokens; the first where padding stands at the left."""
    place, count = real.cumsum(1), real.sum(1, keepdim=True)
    left = real[:, -1:] & ~real[:, :1]
    return real & torch.where(left, place <= count // 2, place > (count + 1) // 2)


def _every_second(real: Tensor) -> Tensor:
    """Return every second real token, but not the last one, which some models read."""
    place = real.cumsum(1)
    return real & (place % 2 == 0) & (place < real.sum(1, keepdim=True))


def _used(model: nn.Module, tap: ErrorTap, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Used:
    """Return on which tokens the output depends: where the true gradient, in evaluation mode, is not zero."""
    places: list[tuple[str, Tensor]] = []

    def see(name: str, output: Any) -> Any:
        activation = activation_in(output)
        if activation is None or activation.ndim < 3:  # no tokens
            return None
        place = activation if activation.requires_grad else activation.detach().requires_grad_()
        places.append((name, place))
        return exchange(output, activation, place.clone())  # a copy: what follows may change it in place

    names = [name for name, _ in model.named_modules() if name]
    with same_state(model), evaluating(model), torch.enable_grad(), observing(model, names, see):
        weights = _weights_in_place_of_zeros(model)
        _, taken = tapped(model, tap, lambda: functional_call(model, weights, args, kwargs), training=False)
    outputs = tap.rows(taken)
    # Different weights: the sum of the outputs of a softmax depends on nothing.
    end = (outputs * torch.linspace(1, 2, outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)).sum()
    gradients = torch.autograd.grad(end, [place for _, place in places], materialize_grads=True)
    used: Used = {}
    for (name, _), gradient in zip(places, gradients, strict=True):
        used.setdefault(name, []).append((gradient != 0).flatten(2).any(-1))
    return used


def _weights_in_place_of_zeros(model: nn.Module) -> dict[str, Tensor]:
    """Return small numbers in place of parameters that are all zero, as a new readout or a closed gate may be."""
    return {
        name: torch.linspace(0.01, 0.02, one.numel(), dtype=one.dtype, device=one.device).reshape(one.shape)
        for name, one in model.named_parameters()
        if not one.any()
    }
