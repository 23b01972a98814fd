"""Run a model and leave no trace: its buffers, its modes and all random numbers are put back."""

from __future__ import annotations

import copy
import operator
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from feedalign.anatomy.hooks import evaluating

Module = TypeVar("Module", bound=nn.Module)


class Buffers:
    """The buffers of a model as they are now.

    A module may write into its buffer, or put another Tensor in the buffer's place; `restore` undoes both.
    """

    def __init__(self, model: nn.Module) -> None:
        self.held = [
            (module, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the buffers back as they were."""
        for module, name, buffer, value in self.held:
            if getattr(module, name, None) is not buffer:
                setattr(module, name, buffer)
            if not torch.equal(buffer, value):  # to write without need would make autograd refuse other graphs
                buffer.copy_(value)


class Attributes:
    """The attributes of a model's modules beside parameters, buffers, modules and hooks, as they are now.

    Some modules keep a state there: spiking neurons, caches, counters. `restore` puts attributes back that a pass has
    set, made or deleted, and what a pass has changed within Tensors, lists, dicts, sets and queues. What objects of the
    model's own hold is not known.
    """

    def __init__(self, model: nn.Module) -> None:
        self.held = [(module, type(module), dict(vars(module))) for module in model.modules()]
        known: dict[int, tuple[Any, Any]] = {}
        for _, _, held in self.held:
            for name, value in held.items():
                if name not in _OF_TORCH and isinstance(value, _CHANGEABLE):
                    _remember(value, known)
        self.contents = list(known.values())

    def restore(self) -> None:
        """Put the attributes back as they were."""
        for module, kind, held in self.held:
            now = vars(module)
            same = len(now) == len(held) and all(map(operator.is_, now.values(), held.values()))  # the usual case
            if not same and type(module) is kind:  # a lazy module becomes another one in its first pass
                for name in (now.keys() | held.keys()) - _OF_TORCH:
                    if name in held:
                        now[name] = held[name]
                    else:
                        del now[name]
        for value, content in self.contents:
            _put_back(value, content)


_CHANGEABLE = Tensor, list, dict, set, deque, tuple  # a tuple for what it holds
_OF_TORCH = frozenset(vars(nn.Module()))  # parameters, buffers, modules, hooks, the mode


def _remember(value: Any, known: dict[int, tuple[Any, Any]]) -> None:
    """Keep a copy of what is within a Tensor or a container, and of what is within that."""
    if id(value) in known:
        return
    if isinstance(value, Tensor):
        if not isinstance(value, nn.Parameter) and not value.is_meta:
            known[id(value)] = value, value.detach().clone()
    else:
        known[id(value)] = value, None if isinstance(value, tuple) else copy.copy(value)
        for entry in value.values() if isinstance(value, dict) else value:
            if isinstance(entry, _CHANGEABLE):
                _remember(entry, known)


@torch.no_grad()
def _put_back(value: Any, content: Any) -> None:
    if isinstance(value, Tensor):
        if not torch.equal(value, content):
            value.detach().copy_(content)
    elif isinstance(value, dict):
        if value.keys() != content.keys() or any(value[key] is not entry for key, entry in content.items()):
            value.clear()
            value.update(content)
    elif isinstance(value, set):
        if value != content:
            value.clear()
            value.update(content)
    elif content is not None and (len(value) != len(content) or any(map(operator.is_not, value, content))):
        value.clear()
        value.extend(content)


class RandomNumbers:
    """The random states of torch (on the CPU and on the model's devices), numpy and Python as they are now."""

    def __init__(self, model: nn.Module) -> None:
        on_gpu = torch.cuda.is_initialized()
        devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"} if on_gpu else set()
        self.torch = torch.get_rng_state()
        self.cuda = {device: torch.cuda.get_rng_state(device) for device in sorted(devices)}
        self.numpy = np.random.get_state(legacy=False)  # noqa: NPY002 — the global state, which models use
        self.python = random.getstate()

    def restore(self) -> None:
        """Put the random states back as they were."""
        torch.set_rng_state(self.torch)
        for device, state in self.cuda.items():
            torch.cuda.set_rng_state(state, device)
        np.random.set_state(self.numpy)  # noqa: NPY002 — as above
        random.setstate(self.python)


def copied(model: Module) -> Module:
    """Return a deep copy of a model that may have run.

    Some modules hold a Tensor of their last pass, such as pruned layers and spiking neurons. Torch refuses to copy a
    Tensor with a past; the copy holds the Tensor's value.
    """
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in held if tensor.grad_fn is not None}
    return copy.deepcopy(model, memo)


@contextmanager
def same_random_numbers(model: nn.Module) -> Iterator[None]:
    """Within this context random numbers are drawn as usual; afterwards the random states are as before."""
    before = RandomNumbers(model)
    try:
        yield
    finally:
        before.restore()


class State:
    """The buffers of a model, the attributes of its modules, and all random states, as they are now.

    Of a model in a rule, given as `net`, these are also the buffers of the rule.
    """

    def __init__(self, model: nn.Module, net: nn.Module | None = None) -> None:
        self.parts = Buffers(net or model), Attributes(model), RandomNumbers(model)

    def restore(self) -> None:
        """Put everything back as it was."""
        for part in self.parts:
            part.restore()


@contextmanager
def same_state(model: nn.Module, net: nn.Module | None = None) -> Iterator[None]:
    """Within this context a model may run; afterwards everything that a `State` holds is as before."""
    before = State(model, net)
    try:
        yield
    finally:
        before.restore()


@contextmanager
def undisturbed(net: nn.Module, model: nn.Module) -> Iterator[None]:
    """Within this context the net is in evaluation mode; afterwards the net and all random states are as before.

    Autocast is off within. Modes, buffers (batch statistics, learned feedback), the attributes of the model's modules,
    and the random states of torch, numpy and Python are put back.

    Args:
        net: a model in a rule.
        model: the bare model inside.
    """
    device = next(net.parameters()).device.type
    with evaluating(net), same_state(model, net), torch.autocast(device, enabled=False):
        yield
