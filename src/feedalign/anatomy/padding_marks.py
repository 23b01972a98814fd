"""Inputs that mark padding though nobody has named them: masks of several conventions, and tokens that fill up."""

from __future__ import annotations

import inspect
import math
from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.anatomy.masks import PassMasks
from feedalign.errors import ArgumentError

TO_BE_ADDED = -1e3  # at most: a mask that is added to logits takes a token out of a softmax


@dataclass(frozen=True)
class Mark:
    """How an input marks padding.

    Attributes:
        key: of the input, see `input_tensors`.
        real: a value that stands for real tokens.
        padding: a value that stands for padding.
        by_padding: whether all other values stand for real tokens; else they stand for padding.
    """

    key: str
    real: float
    padding: float
    by_padding: bool = False

    def of(self, given: Tensor) -> Tensor:
        """Return which tokens are real, [batch, token]."""
        tokens = given.flatten(1)
        return tokens != self.padding if self.by_padding else tokens == self.real


@dataclass(frozen=True)
class UnnamedPadding:
    """What is known of the padding of a model whose mask nobody has named.

    Attributes:
        names: of the inputs that may be given by position.
        points: at which padding may be left out.
        seen: keys of the inputs that have been looked at, see `input_tensors`.
        marks: those that say what is padding at a point, by point.
    """

    names: tuple[str, ...]
    points: tuple[str, ...]
    seen: frozenset[str] = frozenset()
    marks: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, points: tuple[str, ...]) -> UnnamedPadding:
        """Return what is known before any pass."""
        by_name = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        inputs = inspect.signature(model.forward).parameters.values()
        return cls(tuple(one.name for one in inputs if one.kind in by_name), points)

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> PassMasks | None:
        """Return which tokens are real, by point; None if nothing in this pass says that one is padding."""
        if not self.marks:
            return None
        given = input_tensors(self.names, args, kwargs)
        found: dict[str, Tensor | None] = {}
        for point, marks in self.marks.items():
            real: Tensor | None = None
            for mark in marks:
                if mark.key in given:
                    one = mark.of(given[mark.key])
                    real = one if real is None else real & one
            found[point] = real
        return PassMasks(None, found) if any(real is not None for real in found.values()) else None

    def has_late(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Return whether there is an input that no pass before had, and that is a mask by name or by type.

        ArgumentError in compiled code, which cannot ask the model what the input means.
        """
        if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):  # the usual case, in short
            return False
        for key, one in input_tensors(self.names, args, kwargs).items():
            if key not in self.seen and is_mask(key) and marks_tokens(one):
                if torch.compiler.is_compiling():
                    raise ArgumentError(
                        f"compiled code cannot find out whether the input {key} marks padding; give this input in "
                        "example_input= too, or run one pass with it before you compile, or say mask="
                    )
                return True
        return False


def input_tensors(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the Tensors among the inputs, also those in dicts, by key: name, type and number of axes.

    The type is a part of the key, since the same input may say the opposite as another type: torch's attention takes
    true as "look here", and adds numbers.
    """
    found: dict[str, Tensor] = {}
    for i, value in enumerate(args):
        _collect(found, names[i] if i < len(names) else str(i), value)
    for name, value in kwargs.items():
        _collect(found, name, value)
    return found


def _collect(found: dict[str, Tensor], name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        kind = "bool" if value.dtype == torch.bool else "float" if value.is_floating_point() else "int"
        found[f"{name} ({kind}, {value.ndim} axes)"] = value
    elif isinstance(value, (dict, UserDict)):
        for key, one in value.items():
            _collect(found, f"{name}.{key}", one)


def is_mask(key: str) -> bool:
    """Return whether an input is a mask by name or by type."""
    name = key.lower()
    return "mask" in name or "pad" in name or "(bool" in name


def marks_tokens(given: Tensor) -> bool:
    """Return whether an input is [batch, token], but for axes of length 1, with at least two tokens."""
    if given.ndim < 2 or not len(given) or given.is_complex():
        return False
    tokens = max(given.shape[1:])
    return tokens > 1 and given.numel() == len(given) * tokens


def marks_of(key: str, given: Tensor, fillers: Sequence[int]) -> list[Mark]:
    """Return how an input [batch, token] may mark padding, by every convention that the input's values allow.

    Args:
        key: of the input.
        given: its values: zeros and ones, or zeros and large negative numbers to be added, or token ids.
        fillers: ids that may fill up sequences.
    """
    flags = bool(((given == 0) | (given == 1)).all())
    found = []
    if flags or not given.is_floating_point():
        numbers = fillers if given.dtype != torch.bool and not given.is_floating_point() else [0]
        found = [Mark(key, float(one == 0), one, by_padding=True) for one in numbers]
    if flags:
        found.append(Mark(key, 0, 1))
    if given.is_floating_point():
        least = given.min().item()
        if least <= TO_BE_ADDED and bool(((given == 0) | (given <= TO_BE_ADDED)).all()):
            found.append(Mark(key, 0, least))
        elif is_mask(key) and not given.any():  # no padding in this batch, or a mask of zeros and ones that is empty
            found.append(Mark(key, 0, -math.inf))
    return found
