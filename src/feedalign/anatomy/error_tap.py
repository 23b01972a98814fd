"""Where the error is taken: at entries of what the model returns, or at modules inside the forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feedalign.anatomy import problems
from feedalign.anatomy.problems import Problem
from feedalign.anatomy.values import choices_of, entries_of, exchange, is_computed_from, tensors_in
from feedalign.checks import names_in, refused, whole_number
from feedalign.errors import ArgumentError, FeedbackShapeError, OutputError

Entry = int | str | Callable[[Any], Tensor] | None
Entries = Entry | tuple[Entry, ...]
MOST_PLACES = 1000  # an iterator without an end would never be told otherwise


@dataclass(frozen=True)
class ErrorTap:
    """Where the error is taken, and which axes there are the batch.

    Attributes:
        entry: key, index or name of a field of the output, or a function from the output to one of its Tensors; None
            where the output is the Tensor. A tuple of these for several Tensors, whose errors side by side are the
            error.
        batch_dims: how many leading axes, of the output and of every point, are the batch; the axes after them, as
            one, are the C outputs. None for all axes of the output but its last.
        places: dotted names of modules at whose outputs, inside the forward pass, the error is taken; with ".input"
            after the name, at the module's input. Then `entry` is an entry of what these modules return. Without
            places the error is taken at what the model returns.

    Raises:
        ArgumentError: `batch_dims` is no whole number of at least 1, an entry or a place is given twice, or several
            entries are given together with places.
    """

    entry: Entries = None
    batch_dims: int | None = None
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch_dims is not None:
            advice = "it counts the leading axes that are the batch, 1 for [batch, ...], 2 for [batch, token, ...]"
            batch_dims = whole_number("batch_dims", self.batch_dims, at_least=1, advice=advice)
            object.__setattr__(self, "batch_dims", batch_dims)
        for entry in self.entries:
            if isinstance(entry, Tensor) or not isinstance(entry, Hashable):
                raise refused("output", "a key, an index, a name or a function from the output to its entry", entry)
        if not self.entries:
            raise ArgumentError("output=() names no entry; name the entries at which the error is taken")
        for name, given in (("output", self.entries), ("error_at", self.places)):
            if any(given.count(one) > 1 for one in given):  # no set: a tuple may hold what has no hash
                raise ArgumentError(f"{name}={given!r} names one of them twice; name each once")
        if self.places and len(self.entries) > 1:
            raise ArgumentError(
                f"output={self.entry!r} names several entries, and error_at= says that the error is taken at modules; "
                "name one entry, which is then an entry of what these modules return, or leave output= out"
            )

    @classmethod
    def given(cls, output: Entries, batch_dims: int | None, error_at: str | Iterable[str] | None) -> ErrorTap:
        """Return the tap that the arguments `output`, `batch_dims` and `error_at` of a rule describe.

        Raises:
            ArgumentError: as for the class, or `error_at` is neither a name nor several.
        """
        if error_at is None:
            return cls(output, batch_dims)
        places = (error_at,) if isinstance(error_at, str) else names_in("error_at", error_at, MOST_PLACES)
        if not places:
            raise refused("error_at", "the dotted name of a module, or several", error_at, "see model.named_modules()")
        return cls(output, batch_dims, places)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries as a tuple."""
        return self.entry if isinstance(self.entry, tuple) else (self.entry,)

    def is_output(self, output: Any) -> bool:
        """Return whether the error is taken at the output itself, [batch, C]: the usual case, told in short."""
        return self.entry is None and isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point()

    def of(self, output: Any, *, training: bool = True) -> tuple[Tensor, ...]:
        """Return the Tensors of what the model returned at which the error is taken, each [*batch, ...].

        Args:
            output: what the model returned.
            training: whether the model is in training mode. In evaluation mode a model may return the one Tensor alone
                where it returns several things in training; then the error is taken at that Tensor.

        Raises:
            OutputError: nothing there can carry an error.
        """
        found = self.find(output, training=training)
        if isinstance(found, Problem):
            raise OutputError(f"the model's {found.words}")
        return found

    def find(self, output: Any, *, training: bool = True) -> tuple[Tensor, ...] | Problem:
        """Return the Tensors at which the error is taken, as `of` does, or why there are none."""
        alone = not training and isinstance(output, Tensor) and len(self.entries) == 1
        found = []
        for entry in (None,) if alone else self.entries:
            one = self.find_one(output, entry)
            if isinstance(one, Problem):
                return one
            found.append(one)
        return tuple(found)

    def find_one(self, output: Any, entry: Entry) -> Tensor | Problem:
        """Return the Tensor of one entry, or why there is none."""
        found = output if entry is None else _entry_of(output, entry)
        if isinstance(found, Problem):
            return found
        axes = 2 if self.batch_dims is None else self.batch_dims
        if isinstance(found, Tensor) and found.is_floating_point() and found.ndim >= axes:
            return found
        return problems.no_error_there(found, entry, self.batch_dims, choices_of(found))

    def put(self, output: Any, old: Sequence[Tensor], new: Sequence[Tensor]) -> Any:
        """Return the output with the Tensors at which the error is taken exchanged for others.

        Raises:
            OutputError: the output is an object in which a Tensor cannot be exchanged.
        """
        for entry, before, after in zip(self.entries, old, new, strict=True):
            output = _put(output, entry, before, after)
        return output

    def loss_inside(self, output: Any, tapped: Sequence[Tensor]) -> Problem | None:
        """Return what is wrong if the output holds a number that the model has computed from where the error is taken.

        A loss of that kind sends no error: its gradient does not pass what the wrapped model returns.
        """
        for name, entry in entries_of(output).items():
            for number in (one for one in tensors_in(entry) if not one.ndim):
                if any(is_computed_from(number, one) for one in tapped):
                    return problems.loss_inside(self.entry, name)
        return None

    def rows(self, tapped: Sequence[Tensor]) -> Tensor:
        """Return Tensors in the shapes of the tapped ones as one, [*batch, C], side by side.

        Raises:
            FeedbackShapeError: they have different batch axes.
        """
        if len(tapped) == 1:
            return self.row(tapped[0])
        rows = [self.row(one) for one in tapped]
        if len(shapes := {one.shape[:-1] for one in rows}) > 1:
            raise FeedbackShapeError(
                f"the Tensors at which the error is taken have the batch axes {', '.join(map(str, map(tuple, shapes)))}"
                ", expected the same, so that their errors side by side are one error; batch_dims= says how many axes "
                "are the batch"
            )
        return torch.cat(rows, -1)

    def row(self, tapped: Tensor) -> Tensor:
        """Return one Tensor in a tapped one's shape as [*batch, outputs]."""
        if self.batch_dims is None or tapped.ndim == self.batch_dims + 1:
            return tapped
        batch, outputs = tapped.shape[: self.batch_dims], tapped.shape[self.batch_dims :]
        return tapped.reshape(*batch, outputs.numel())

    def batch_shape(self, tapped: Tensor) -> torch.Size:
        """Return the batch axes of a tapped Tensor."""
        return tapped.shape[: -1 if self.batch_dims is None else self.batch_dims]


def _entry_of(output: Any, entry: Entry) -> Any:
    if callable(entry):
        found = entry(output)
        if isinstance(found, Tensor) and not any(found is one for one in tensors_in(output)):
            return problems.computed_entry(entry)
        return found
    try:
        by_name = isinstance(entry, str) and not isinstance(output, dict)
        return getattr(output, str(entry)) if by_name else output[entry]
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return problems.unknown_entry(output, entry, choices_of(output))


def _put(output: Any, entry: Entry, old: Tensor, new: Tensor) -> Any:
    if output is old:
        return new
    if entries_of(output):
        return exchange(output, old, new)
    if isinstance(entry, str) and getattr(output, entry, None) is old:
        other = copy.copy(output)  # an object of the model's own
        with suppress(AttributeError):
            setattr(other, entry, new)
            return other
    raise OutputError(f"the model's {problems.fixed_output(output)}")
