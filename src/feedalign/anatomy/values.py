"""What modules take and give: Tensors in nested tuples, lists, dicts and dataclasses; how autograd connects them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from feedalign.anatomy import problems
from feedalign.errors import PointsError


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
    entries = entries_of(value)
    plain_object = objects and not entries and hasattr(value, "__dict__")
    if plain_object and not isinstance(value, (type, nn.Module)) and not callable(value):
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
    if isinstance(value, (dict, UserDict)):  # before dataclasses: some outputs are both, and keep the two in step
        other = copy.copy(value)
        for key, new in changed.items():
            other[key] = new
        return other
    if isinstance(value, (tuple, list)):  # no union, here and below: the compiler of torch 2.7 does not know it
        new = {**entries, **changed}.values()
        if torch.compiler.is_compiling() and hasattr(value, "_fields"):  # the compiler of torch 2.9 fails in _make
            return type(value)(*new)
        # A named tuple takes its entries one by one, except through _make.
        return getattr(type(value), "_make", type(value))(new)
    return dataclasses.replace(value, **changed)


def exchange(value: Any, old: Tensor, new: Tensor) -> Any:
    """Return a value with one Tensor in it, wherever it stands, in another's place."""
    return mapped(value, lambda tensor: new if tensor is old else tensor)


def first_samples(inputs: Any, few: int, samples: int) -> Any:
    """Return the inputs of the first few samples: Tensors whose first axis has the length `samples` are cut.

    Each of these Tensors becomes another object. Where there are none, the same inputs come back.
    """
    return mapped(inputs, lambda one: one[:few] if one.ndim and len(one) == samples else one)


def one_fewer(args: Any, kwargs: Any, samples: int) -> tuple[Any, Any] | None:
    """Return the inputs of a model, by position and by keyword, without the last sample.

    None where no input shows its samples. One sample fewer shows which axis is the batch where the shapes of one batch
    do not.
    """
    given = args, kwargs
    fewer: tuple[Any, Any] = first_samples(given, samples - 1, samples)
    return None if samples < 2 or fewer is given else fewer


def tensors_in(value: Any) -> list[Tensor]:
    """Return every Tensor in nested tuples, lists, dicts and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for entry in entries_of(value).values() for tensor in tensors_in(entry)]


@torch.inference_mode(False)
def recordable(value: Any) -> Any:
    """Return a value in which no Tensor was made in inference mode: autograd cannot use such Tensors."""
    return mapped(value, lambda tensor: tensor.clone() if tensor.is_inference() else tensor)


def arguments(model: nn.Module, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments, by position and by keyword, with which a model takes a batch; autograd can use them.

    Args:
        model: the bare model, not wrapped in a rule.
        x: one input; a tuple of several; or a mapping from the names of the inputs, as tokenizers return it. A named
            tuple (such as a packed sequence) is one input. So is a mapping that does not fit the model's signature.
    """
    x = recordable(x)
    if type(x) is tuple:
        return x, {}
    if isinstance(x, Mapping) and all(isinstance(name, str) for name in x):
        try:
            inspect.signature(model.forward).bind(**x)
        except TypeError:
            return (x,), {}
        return (), dict(x)
    return (x,), {}


def is_computed_from(result: Tensor, source: Tensor) -> bool:
    """Return whether autograd's graph leads from one Tensor to another."""
    if result is source or source.grad_fn is None:
        return False
    return any(node is source.grad_fn for node in operations_below([result]))


def origin(result: Tensor) -> Node | None:
    """Return the operation that a result comes from, but for operations with one input, such as a cast or a softmax.

    None if autograd has recorded no operation.
    """
    node = result.grad_fn
    while node is not None and len(node.next_functions) == 1:
        below, _ = node.next_functions[0]
        if below is None or not below.next_functions:  # a constant or a leaf
            break
        node = below
    return node


def leaves_below(results: Iterable[Tensor], leaves: Iterable[Tensor], ends: Iterable[Tensor] = ()) -> set[int]:
    """Return the ids of the leaves to which autograd's graph leads from the results. No way leads on through `ends`."""
    known = {get_gradient_edge(leaf).node: id(leaf) for leaf in leaves if leaf.requires_grad}
    return {known[node] for node in operations_below(results, ends) if node in known} if known else set()


def operations_below(results: Iterable[Tensor], ends: Iterable[Tensor] = ()) -> Iterator[Node]:
    """Yield every operation in autograd's graph that the results are computed by, each once; see `leaves_below`."""
    waiting = [result.grad_fn for result in results if result.grad_fn is not None]
    seen = {*waiting, *(end.grad_fn for end in ends if end.grad_fn is not None)}
    while waiting:
        node = waiting.pop()
        yield node
        below = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= below
        waiting += below


@contextmanager
def observing(model: nn.Module, names: Iterable[str], see: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call see(name, output) each time a named module has run; what `see` returns, unless None, replaces the output."""

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda _module, _inputs, output: see(name, output)

    with ExitStack() as handles:
        for name in names:
            handles.enter_context(model.get_submodule(name).register_forward_hook(hook_of(name)))
        yield


def detached(output: Any) -> Any:
    """Return what a point's module returned without its past, also where Tensors are in objects of the model's own."""
    return mapped(output, Tensor.detach, objects=True)


def activation_in(output: Any) -> Tensor | None:
    """Return a module's output, or its first entry if it is a tuple or list; None unless that is a Tensor of floats."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return first if isinstance(first, Tensor) and first.is_floating_point() else None


def activation_of(name: str, output: object) -> Tensor:
    """Return the activation of a point from what its module returned; PointsError if there is none."""
    activation = activation_in(output)
    if activation is None:
        raise PointsError(f"point {problems.no_tensor(name, output)}")
    return activation


def entries_of(value: Any) -> dict[Any, Any]:
    """Return the entries of a tuple, list, dict or dataclass by index, key or name; nothing of any other value."""
    if isinstance(value, (dict, UserDict)):  # tokenizers return a UserDict
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if value is None or isinstance(value, (bool, int, float, str)):  # the compiler of torch 2.9 cannot ask these below
        return {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def choices_of(output: object) -> str:
    """Return the names of the entries of a value, in one line."""
    return ", ".join(map(repr, list(getattr(output, "_fields", ())) or entries_of(output)))
