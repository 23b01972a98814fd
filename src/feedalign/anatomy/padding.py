"""Padding that nobody has named is found by asking the model: a token is marked as padding, and loses its gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from feedalign.anatomy.error_tap import ErrorTap
from feedalign.anatomy.masks import real_features
from feedalign.anatomy.padding_marks import Mark, UnnamedPadding, input_tensors, marks_of, marks_tokens
from feedalign.anatomy.tapping import tapped
from feedalign.anatomy.undisturbed import evaluating, same_state
from feedalign.anatomy.values import activation_in, activation_of, exchange, first_samples, observing

SAMPLES = 2  # of the batch are enough, and a graph of the whole model is kept for no more

Used = dict[str, Tensor]  # by module: whether the output depends on a token of what it returns, [batch, token]


def find_padding(
    known: UnnamedPadding, model: nn.Module, tap: ErrorTap, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> UnnamedPadding:
    """Return what is known of a model's padding after a look at those inputs that were not there before.

    The model is asked about each input that is [batch, token]. Some tokens are marked as padding there, by every
    convention that the input's values allow. The input is the mask of a point if the output depended on some of these
    tokens before, depends on none of them afterwards, and stays as it is with other activations in the padding. The
    tokens of the batch that are padding already must have no gradient either. The batch itself needs no padding.

    A point of which the output does not read the tokens in question, as the last block where the first token is the
    readout, has the mask too, if no module of the model has a gradient in the padding.
    """
    # Without fullgraph=True a compiled model comes here too; compiled code keeps none of the hooks that are set here.
    found: UnnamedPadding = torch.compiler.disable(_after_a_look)(known, model, tap, (args, kwargs))
    return found


def _after_a_look(known: UnnamedPadding, model: nn.Module, tap: ErrorTap, inputs: tuple[Any, Any]) -> UnnamedPadding:
    given = input_tensors(known.names, *inputs)
    new = [key for key, one in given.items() if key not in known.seen and marks_tokens(one) and not one.is_meta]
    fillers = [0, *(m.padding_idx for m in model.modules() if isinstance(m, nn.Embedding) and m.padding_idx)]
    marks = dict(known.marks)
    for key in new:
        for mark in marks_of(key, given[key], list(dict.fromkeys(fillers))):
            if found := _masked_points(known, model, tap, inputs, mark):
                marks |= {point: (*marks.get(point, ()), mark) for point in found}
                break
    return dataclasses.replace(known, seen=known.seen | frozenset(new), marks=marks)


def _masked_points(
    known: UnnamedPadding, model: nn.Module, tap: ErrorTap, inputs: tuple[Any, Any], mark: Mark
) -> list[str]:
    """Return the points at which an input marks padding in this way."""
    samples = len(input_tensors(known.names, *inputs)[mark.key])
    for few in (SAMPLES, samples):
        fewer = first_samples(inputs, few, samples)
        given = input_tensors(known.names, *fewer)[mark.key]
        try:
            return _Question(model, tap, fewer, given).ask(known.points, mark)
        except Exception:  # of the model's own, which takes no other batch; else the pass itself will tell
            continue
    return []


class _Question:
    """What a model makes of other values of one of its inputs, the `given` one. No other input is the same object."""

    def __init__(self, model: nn.Module, tap: ErrorTap, inputs: tuple[Any, Any], given: Tensor) -> None:
        self.model, self.tap, self.inputs, self.given = model, tap, inputs, given
        self.weights = {  # small numbers in place of zeros, as a new readout or a closed gate may be
            name: torch.linspace(0.01, 0.02, one.numel(), dtype=one.dtype, device=one.device).reshape(one.shape)
            for name, one in model.named_parameters()
            if not one.any()
        }

    def ask(self, points: Sequence[str], mark: Mark) -> list[str]:
        """Return the points at which the given input marks padding in this way."""
        given = self.given.flatten(1)
        empty = mark.of(given).sum(1, keepdim=True) < 2  # nothing can be marked in a sample of padding
        given = given.masked_fill(empty, mark.real)
        real = mark.of(given)
        before = self.used(given)
        for padding in (_second_half(real), _every_second(real)):
            marked = given.masked_fill(padding, mark.padding)
            try:
                told = _told(before, self.used(marked), points, real, padding)
                found = [one for one in told if self.same_whatever_stands_in_padding(one, marked, real & ~padding)]
            except Exception:  # of the model's own, which takes no padding at these tokens
                continue
            if found:
                return found
        return []

    def used(self, value: Tensor) -> Used:
        """Return on which tokens the output depends: where the true gradient, in evaluation mode, is not zero."""
        places: list[tuple[str, Tensor]] = []

        def see(name: str, output: Any) -> Any:
            activation = activation_in(output)
            if activation is None or activation.ndim < 3:  # no tokens
                return None
            place = activation if activation.requires_grad else activation.detach().requires_grad_()
            places.append((name, place))
            return exchange(output, activation, place.clone())  # a copy: what follows may change it in place

        with torch.enable_grad():
            outputs = self._run(value, [name for name, _ in self.model.named_modules() if name], see)
        # Different weights: the sum of the outputs of a softmax depends on nothing.
        weights = torch.linspace(1, 2, outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
        found = torch.autograd.grad((outputs * weights).sum(), [place for _, place in places], materialize_grads=True)
        runs: dict[str, list[Tensor]] = {}
        for (name, _), gradient in zip(places, found, strict=True):
            runs.setdefault(name, []).append((gradient != 0).flatten(2).any(-1))
        with_tokens = {name: each for name, each in runs.items() if all(one.shape == value.shape for one in each)}
        return {name: torch.stack(each).any(0) for name, each in with_tokens.items()}

    @torch.no_grad()
    def same_whatever_stands_in_padding(self, point: str, value: Tensor, real: Tensor) -> bool:
        """Return whether other activations of a point leave the output as it is, if they stand in the padding.

        The gradient is zero also at tokens that lose a contest, as in a maximum over tokens, or where an activation
        function is flat. With other activations they would count.
        """

        def see(name: str, output: Any) -> Any:
            activation = activation_of(name, output)
            other = torch.full_like(activation, 10) * (1 + activation.abs().amax())
            other[..., ::2] *= -1
            features = real_features(real, activation.shape, real.shape[:1])
            return exchange(output, activation, torch.where(features, activation, other))

        return torch.allclose(self._run(value), self._run(value, [point], see))

    def _run(self, value: Tensor, names: Sequence[str] = (), see: Callable[[str, Any], Any] | None = None) -> Tensor:
        """Return the output for another input, [*batch, C]; `see` may exchange what modules return."""
        new = exchange(self.inputs, self.given, value.reshape(self.given.shape))
        run = partial(functional_call, self.model, self.weights, *new)
        with same_state(self.model), evaluating(self.model), observing(self.model, names, see or (lambda *_: None)):
            return self.tap.rows(tapped(self.model, self.tap, run, training=False)[1])


def _told(before: Used, after: Used, points: Sequence[str], real: Tensor, padding: Tensor) -> list[str]:
    """Return the points at which the output no longer depends on tokens, once they are marked as padding.

    Other points are masked too if they have nothing to do with padding, and the same holds of every module. Those are
    the last block, say, of which the output depends on the first token alone.
    """
    clean, shown = {}, set()
    for name in before.keys() & after.keys():
        clean[name] = not bool((before[name] & ~real).any() or (after[name] & ~(real & ~padding)).any())
        if clean[name] and bool((before[name] & padding).any()):
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
