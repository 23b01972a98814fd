"""What modules return: the Tensor at which the error is taken or sent, wherever it stands in a tuple or a dict."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from feedalign.anatomy import problems
from feedalign.anatomy.problems import Problem
from feedalign.checks import refused, whole_number
from feedalign.errors import OutputError, PointsError

Entry = int | str | Callable[[Any], Tensor] | None


@dataclass(frozen=True)
class ErrorTap:
    """Where in a model's output the error is taken, and which of its axes are the batch.

    Attributes:
        entry: key, index or name of a field of the output, or a function from the output to one of its Tensors; None
            where the output is the Tensor.
        batch_dims: how many leading axes, of the output and of every point, are the batch; the axes after them, as
            one, are the C outputs. None for all axes of the output but its last.

    Raises:
        ArgumentError: `batch_dims` is no whole number of at least 1, or `entry` can be no key.
    """

    entry: Entry = None
    batch_dims: int | None = None

    def __post_init__(self) -> None:
        if self.batch_dims is not None:
            advice = "it counts the leading axes that are the batch, 1 for [batch, ...], 2 for [batch, token, ...]"
            object.__setattr__(
                self, "batch_dims", whole_number("batch_dims", self.batch_dims, at_least=1, advice=advice)
            )
        if isinstance(self.entry, Tensor) or not isinstance(self.entry, Hashable):
            raise refused("output", "a key, an index, a name or a function from the output to its entry", self.entry)

    def of(self, output: Any, *, training: bool = True) -> Tensor:
        """Return the Tensor at which the error is taken, [*batch, ...]; OutputError if nothing there can carry one.

        Args:
            output: what the model returned.
            training: whether the model is in training mode. In evaluation mode a model may return the one Tensor alone
                where it returns several things in training; then the error is taken at that Tensor.
        """
        if self.entry is None and isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point():
            return output  # the usual case, in short
        alone = not training and isinstance(output, Tensor)
        found = (ErrorTap(None, self.batch_dims) if alone else self).find(output)
        if isinstance(found, Problem):
            raise OutputError(f"the model's {found.words}")
        return found

    def find(self, output: Any) -> Tensor | Problem:
        """Return the Tensor at which the error is taken, or why there is none."""
        found = output if self.entry is None else self._entry_of(output)
        if isinstance(found, Problem):
            return found
        axes = 2 if self.batch_dims is None else self.batch_dims
        if isinstance(found, Tensor) and found.is_floating_point() and found.ndim >= axes:
            return found
        return problems.no_error_there(found, self.entry, self.batch_dims, _choices(found))

    def put(self, output: Any, old: Tensor, new: Tensor) -> Any:
        """Return the output with the Tensor at which the error is taken exchanged for another.

        Raises:
            OutputError: the output is an object in which the Tensor cannot be exchanged.
        """
        if output is old:
            return new
        if _entries(output):
            return exchange(output, old, new)
        if isinstance(self.entry, str) and getattr(output, self.entry, None) is old:
            other = copy.copy(output)  # an object of the model's own
            try:
                setattr(other, self.entry, new)
            except AttributeError:
                pass
            else:
                return other
        raise OutputError(f"the model's {problems.fixed_output(output)}")

    def rows(self, tapped: Tensor) -> Tensor:
        """Return a Tensor in the tapped one's shape as [*batch, C]."""
        if self.batch_dims is None or tapped.ndim == self.batch_dims + 1:
            return tapped
        batch, outputs = tapped.shape[: self.batch_dims], tapped.shape[self.batch_dims :]
        return tapped.reshape(*batch, outputs.numel())

    def batch_shape(self, tapped: Tensor) -> torch.Size:
        """Return the batch axes of the tapped Tensor."""
        return tapped.shape[: -1 if self.batch_dims is None else self.batch_dims]

    def _entry_of(self, output: Any) -> Any:
        if callable(self.entry):
            found = self.entry(output)
            if isinstance(found, Tensor) and not any(found is one for one in tensors_in(output)):
                return problems.computed_entry(self.entry)
            return found
        try:
            by_name = isinstance(self.entry, str) and not isinstance(output, dict)
            return getattr(output, str(self.entry)) if by_name else output[self.entry]
        except (AttributeError, LookupError, TypeError, ValueError):
            return problems.unknown_entry(output, self.entry, _choices(output))


def mapped(value: Any, change: Callable[[Tensor], Tensor], *, objects: bool = False) -> Any:
    """Return a value with every Tensor in it changed, in nested tuples, lists, dicts and dataclasses.

    Everything else is kept as it is; a container in which nothing changes is the same object.

    Args:
        value: anything.
        change: called with every Tensor; returns what goes in its place.
        objects: look into the attributes of other objects too; an object in which something changes is copied.
    """
    if isinstance(value, Tensor):
        return change(value)
    entries = _entries(value)
    plain_object = objects and not entries and hasattr(value, "__dict__")
    if plain_object and not isinstance(value, (type, torch.nn.Module)) and not callable(value):
        entries = vars(value)
    changed = {key: new for key, old in entries.items() if (new := mapped(old, change, objects=objects)) is not old}
    if not changed:
        return value
    if plain_object:
        other = copy.copy(value)
        vars(other).update(changed)
        return other
    if type(value) is dict:  # torch.compile cannot see into a copy
        return {**value, **changed}
    if isinstance(value, dict):  # before dataclasses: some outputs are both, and keep the two in step
        other = copy.copy(value)
        for key, new in changed.items():
            other[key] = new
        return other
    if isinstance(value, (tuple, list)):  # no union, here and below: the compiler of torch 2.7 does not know it
        # A named tuple takes its entries one by one, except through _make.
        return getattr(type(value), "_make", type(value))({**entries, **changed}.values())
    return dataclasses.replace(value, **changed)


def exchange(value: Any, old: Tensor, new: Tensor) -> Any:
    """Return a value with one Tensor in it, wherever it stands, in another's place."""
    return mapped(value, lambda tensor: new if tensor is old else tensor)


def tensors_in(value: Any) -> list[Tensor]:
    """Return every Tensor in nested tuples, lists, dicts and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for entry in _entries(value).values() for tensor in tensors_in(entry)]


def is_computed_from(result: Tensor, source: Tensor) -> bool:
    """Return whether autograd's graph leads from one Tensor to another."""
    if result is source or source.grad_fn is None:
        return False
    return any(node is source.grad_fn for node in operations_below([result]))


def leaves_below(results: Iterable[Tensor], leaves: Iterable[Tensor]) -> set[int]:
    """Return the ids of those leaves to which autograd's graph leads from one of the results."""
    known = {get_gradient_edge(leaf).node: id(leaf) for leaf in leaves if leaf.requires_grad}
    return {known[node] for node in operations_below(results) if node in known} if known else set()


def operations_below(results: Iterable[Tensor]) -> Iterator[Node]:
    """Yield every operation in autograd's graph that the results are computed by, each once."""
    waiting = [result.grad_fn for result in results if result.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        below = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= below
        waiting += below


def detached(output: Any) -> Any:
    """Return what a point's module returned without its past, also where Tensors are in objects of the model's own."""
    return mapped(output, Tensor.detach, objects=True)


def activation_in(output: Any) -> Tensor | None:
    """Return the activation a module gives: its output, or the first entry of a tuple or list; None if that is none."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return first if isinstance(first, Tensor) and first.is_floating_point() else None


def activation_of(name: str, output: object) -> Tensor:
    """Return the activation of a point from what its module returned; PointsError if there is none."""
    activation = activation_in(output)
    if activation is None:
        raise PointsError(f"point {problems.no_tensor(name, output)}")
    return activation


def _entries(value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def _choices(output: object) -> str:
    return ", ".join(map(repr, list(getattr(output, "_fields", ())) or _entries(output)))
