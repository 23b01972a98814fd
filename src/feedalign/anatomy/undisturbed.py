"""Run a model and leave no trace: its buffers, its modes and all random numbers are put back."""

from __future__ import annotations

import copy
import operator
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
Restore = Callable[[], None]  # puts something back as it was when this function was made


def _buffers(model: nn.Module) -> Restore:
    """Restore buffers: a module may write into its buffer, or put another Tensor in the buffer's place."""
    held = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]

    @torch.no_grad()
    def restore() -> None:
        for module, name, buffer, value in held:
            if getattr(module, name, None) is not buffer:
                setattr(module, name, buffer)
            if not torch.equal(buffer, value):  # to write without need would make autograd refuse other graphs
                buffer.copy_(value)

    return restore


_CHANGEABLE = Tensor, list, dict, set, deque, tuple  # a tuple for what it holds
_OF_TORCH = frozenset(vars(nn.Module()))  # parameters, buffers, modules, hooks, the mode


def _attributes(model: nn.Module) -> Restore:
    """Restore the attributes of a model's modules beside parameters, buffers, modules and hooks.

    Some modules keep a state there: spiking neurons, caches, counters. Attributes are put back that a pass has set,
    made or deleted, and what a pass has changed within Tensors, lists, dicts, sets and queues. What objects of the
    model's own hold is not known.
    """
    held = [(module, type(module), dict(vars(module))) for module in model.modules()]
    contents: dict[int, tuple[Any, Any]] = {}
    for _, _, before in held:
        for name, value in before.items():
            if name not in _OF_TORCH and isinstance(value, _CHANGEABLE):
                _remember(value, contents)

    def restore() -> None:
        for module, kind, before in held:
            now = vars(module)
            same = len(now) == len(before) and all(map(operator.is_, now.values(), before.values()))  # the usual case
            if not same and type(module) is kind:  # a lazy module becomes another one in its first pass
                for name in (now.keys() | before.keys()) - _OF_TORCH:
                    if name in before:
                        now[name] = before[name]
                    else:
                        del now[name]
        for value, content in contents.values():
            _put_back(value, content)

    return restore


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


def _random_numbers(model: nn.Module) -> Restore:
    """Restore the random states of torch (on the CPU and on the model's devices), numpy and Python."""
    on_gpu = torch.cuda.is_initialized()
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"} if on_gpu else set()
    of_torch = torch.get_rng_state()
    of_cuda = {device: torch.cuda.get_rng_state(device) for device in sorted(devices)}
    of_numpy = np.random.get_state(legacy=False)  # noqa: NPY002 — the global state, which models use
    of_python = random.getstate()

    def restore() -> None:
        torch.set_rng_state(of_torch)
        for device, state in of_cuda.items():
            torch.cuda.set_rng_state(state, device)
        np.random.set_state(of_numpy)  # noqa: NPY002 — as above
        random.setstate(of_python)

    return restore


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
    restore = _random_numbers(model)
    try:
        yield
    finally:
        restore()


class State:
    """The buffers of a model, the attributes of its modules, and all random states, as they are now.

    Of a model in a rule, given as `net`, these are also the buffers of the rule.
    """

    def __init__(self, model: nn.Module, net: nn.Module | None = None) -> None:
        self.parts = _buffers(net or model), _attributes(model), _random_numbers(model)

    def restore(self) -> None:
        """Put everything back as it was."""
        for restore in self.parts:
            restore()


@contextmanager
def same_state(model: nn.Module, net: nn.Module | None = None) -> Iterator[None]:
    """Within this context a model may run; afterwards everything that a `State` holds is as before."""
    before = State(model, net)
    try:
        yield
    finally:
        before.restore()


class _ShortWay:
    """The short way that torch's Transformer layers take in evaluation mode, off while any thread wants it to be off.

    The switch is one for all threads. So the first thread that turns the short way off keeps how the switch was, and
    the last one puts the switch back.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within this context the short way is off."""
        with self.lock:
            if not self.users:
                self.before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    torch.backends.mha.set_fastpath_enabled(self.before)


SHORT_WAY = _ShortWay()


@contextmanager
def same_modes(model: nn.Module) -> Iterator[None]:
    """After this context every part of the model is in training mode, or in evaluation mode, as before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this context every part of the model is in evaluation mode.

    The short way that torch's Transformer layers take in evaluation mode is off: it runs no hook, and gives nested
    Tensors where a mask is given. What autocast has cast within is forgotten: it may have been cast without a graph.
    """
    with SHORT_WAY.off(), same_modes(model):
        model.eval()
        try:
            yield
        finally:
            torch.clear_autocast_cache()


@contextmanager
def undisturbed(net: nn.Module, model: nn.Module) -> Iterator[None]:
    """Within this context the net is in evaluation mode, and autocast is off. Afterwards all is as before.

    Modes, buffers (batch statistics, learned feedback), the attributes of the model's modules, and the random states of
    torch, numpy and Python are put back.

    Args:
        net: a model in a rule.
        model: the bare model inside.
    """
    device = next(net.parameters()).device.type
    with evaluating(net), same_state(model, net), torch.autocast(device, enabled=False):
        yield
