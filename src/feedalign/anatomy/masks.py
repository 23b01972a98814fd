"""Padding: which entries of a batch count, as a mask among the model's inputs says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from feedalign.checks import refused
from feedalign.errors import ArgumentError, FeedbackShapeError
from feedalign.feedback import Form

if TYPE_CHECKING:
    from feedalign.anatomy.blocks import Block

_CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
OneMask = str | Callable[[tuple[Any, ...], dict[str, Any]], Tensor | None] | None
Mask = OneMask | Mapping[str, OneMask]
_WANTED = "the name of a model input, or a function of the inputs (args, kwargs), or a dict of these by point"


@dataclass(frozen=True)
class PassMasks:
    """Which entries are real in one pass."""

    of_error: Tensor | None  # where the error is taken, and at all points without a mask of their own; None for all
    of_points: Mapping[str, Tensor | None] = field(default_factory=dict)  # points with a mask of their own, by name

    def at(self, point: str, form: Form, message: Tensor) -> Tensor | None:
        """Return the mask of a point; None if all entries are real there.

        Args:
            point: its name.
            form: of its matrix. If the point lacks some of the error's batch axes, its tokens are not those of the
                error, and the error's mask only says which samples are real.
            message: what a rule sends, or the error, with all batch axes of the output.
        """
        if point in self.of_points:
            return self.of_points[point]
        common = message.ndim - 1 - form.summed
        if self.of_error is None or not form.summed or self.of_error.ndim <= common:
            return self.of_error
        return self.of_error.flatten(common).any(-1)


@dataclass(frozen=True)
class InputMask:
    """How the mask is found among the inputs of a forward pass."""

    given: OneMask = None  # name of an input, or a function of the inputs (args, kwargs); None where nothing is padding
    position: int | None = None  # of the input of this name; None if it is given by keyword

    @classmethod
    def of(cls, model: nn.Module, mask: OneMask) -> InputMask:
        """Return how the mask is found; ArgumentError unless it is the name of an input, a function, or None."""
        if not isinstance(mask, str):
            if mask is not None and not callable(mask):
                raise refused("mask", _WANTED, mask)
            return cls(mask)
        inputs = inspect.signature(model.forward).parameters
        if mask not in inputs:
            if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in inputs.values()):
                return cls(mask)
            raise ArgumentError(f"mask={mask!r} is no input of the model, choose from: {', '.join(map(repr, inputs))}")
        by_position = inputs[mask].kind is not inspect.Parameter.KEYWORD_ONLY
        return cls(mask, list(inputs).index(mask) if by_position else None)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """Return which entries are real, as booleans; None if this pass has no mask, so that all of them are."""
        found = self._found(args, kwargs)
        return found if found is None or found.dtype == torch.bool else found != 0

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ArgumentError unless a mask of numbers holds 0 and 1 alone: masks to be added mean the opposite."""
        found = self._found(args, kwargs)
        if found is not None and not bool(((found == 0) | (found == 1)).all()):
            raise ArgumentError(
                f"mask={self.given!r} holds other numbers than 0 and 1, expected 1 for real entries and 0 for padding; "
                "give a function of the inputs (args, kwargs) that returns such a mask"
            )

    def _found(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        if self.given is None:
            return None
        found: Any = None
        if not isinstance(self.given, str):
            found = self.given(args, kwargs)
        elif self.given in kwargs:
            found = kwargs[self.given]
        elif self.position is not None and self.position < len(args):
            found = args[self.position]
        if found is None or isinstance(found, Tensor):
            return found
        raise ArgumentError(
            f"mask={self.given!r} gives a {type(found).__name__}, expected a Tensor [batch, token]: true or 1 for real "
            "entries, false or 0 for padding"
        )


@dataclass(frozen=True)
class InputMasks:
    """How the masks of a pass are found among its inputs; the masks are those of `PassMasks`."""

    of_error: InputMask
    of_points: Mapping[str, InputMask] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, mask: Mask, points: Sequence[str]) -> InputMasks:
        """Return how the masks are found among the inputs of a model.

        `mask` is one mask, or masks by point, with that of the error under "". ArgumentError if a mask is neither a
        name nor a function, the model has no input of its name, or a key is no point.
        """
        if not isinstance(mask, Mapping):
            return cls(InputMask.of(model, mask))
        if unknown := [name for name in mask if name != "" and name not in points]:
            raise ArgumentError(
                f"mask has the key {unknown[0]!r}, which is no point; give masks by point, from: "
                f'{", ".join(map(repr, points))}, and under "" the mask of where the error is taken'
            )
        found = {name: InputMask.of(model, one) for name, one in mask.items()}
        return cls(found.pop("", InputMask()), found)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PassMasks | None:
        """Return which entries are real, as booleans; None if this pass has no mask at all."""
        of_error = self.of_error(args, kwargs)
        if not self.of_points:
            return None if of_error is None else PassMasks(of_error)
        return PassMasks(of_error, {name: one(args, kwargs) for name, one in self.of_points.items()})

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ArgumentError unless masks of numbers hold 0 and 1 alone: masks to be added mean the opposite."""
        for one in (self.of_error, *self.of_points.values()):
            one.check(args, kwargs)


def real_rows(mask: Tensor, batch: Sequence[int]) -> Tensor:
    """Return which entries of the batch count, with axes of length 1 behind: it broadcasts to [*batch, C].

    A mask with more axes than the batch, as [batch, token] where the batch is [batch], is of the features. Then an
    entry counts if any feature does. FeedbackShapeError if the mask has other batch axes.
    """
    shared = min(mask.ndim, len(batch))
    if tuple(mask.shape[:shared]) != tuple(batch[:shared]):
        raise FeedbackShapeError(
            f"the mask has shape {tuple(mask.shape)}, and where the error is taken the batch axes are {tuple(batch)}; "
            "the mask must begin with the batch axes, or be [batch]; where an encoder has other tokens than the "
            'output, give a dict of masks by point, {"encoder": "source_mask"}'
        )
    rows = mask if mask.ndim <= len(batch) else mask.flatten(len(batch)).any(-1)
    return _with_axes(rows, len(batch) + 1)


def real_features(mask: Tensor, shape: Sequence[int], batch: Sequence[int], name: str = "") -> Tensor:
    """Return which entries of an activation count; it broadcasts to the activation.

    The activation is [*batch, ...]. An activation [batch, n] without a token axis counts as a whole.
    FeedbackShapeError, which names the point, if the mask fits neither the batch axes of where the error is taken nor
    the first axes of the activation.
    """
    rows = real_rows(mask, batch)
    while mask.ndim > len(batch) and mask.shape[-1] == 1:
        mask = mask.squeeze(-1)
    if mask.ndim <= len(batch) or len(shape) <= mask.ndim:
        return _with_axes(rows.squeeze(-1), len(shape))
    if any(have not in (1, want) for have, want in zip(mask.shape, shape[: mask.ndim], strict=True)):
        raise FeedbackShapeError(
            f"the mask has shape {tuple(mask.shape)}, which does not go with point {name!r} of shape {tuple(shape)}; "
            "give mask= a function of the inputs (args, kwargs) that returns a mask with the first axes of the points"
        )
    return _with_axes(mask, len(shape))


def refuse_square_maps(masks: PassMasks, blocks: Sequence[Block], model: nn.Module) -> None:
    """Raise FeedbackShapeError if a mask [batch, n] meets a convolution's [batch, n, n]: channels may come first.

    Where the numbers of channels and tokens differ, the mask fits one axis alone, or is refused with the pass.
    """
    for block in blocks[:-1]:
        mask = masks.of_points.get(block.point, masks.of_error)
        convolution = isinstance(model.get_submodule(block.preactivation), _CONVOLUTIONS)
        if mask is not None and mask.ndim > 1 and convolution and block.shape[:2] == (mask.shape[1],) * 2:
            raise FeedbackShapeError(
                f"the mask has shape {tuple(mask.shape)}, and point {block.point!r} has {mask.shape[1]} channels and "
                "as many tokens, so the mask may be of either; begin with sequences of another length, and let the "
                "model transpose to [batch, token, feature] before the point"
            )


def without_padding(value: Tensor, mask: Tensor | None, batch: Sequence[int]) -> Tensor:
    """Return an activation, or what is sent to one, with zeros where the mask says padding."""
    return value if mask is None else value.masked_fill(~real_features(mask, value.shape, batch), 0)


def _with_axes(mask: Tensor, axes: int) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (axes - mask.ndim))
