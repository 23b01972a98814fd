"""Forward hooks, and such as are light enough for a small network's step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, Protocol

import torch
from torch import nn

Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


class Handle(Protocol):
    """What takes a hook away again."""

    def remove(self) -> None:
        """Leave the module as it was."""


def after(module: nn.Module, hook: Hook) -> Handle:
    """Call hook(module, inputs, output) each time a module has run; what it returns, if anything, replaces the output.

    The hook runs after those that are there already, and before any that come later.
    """
    # Only around what holds nothing: copies of such a module, and layers that look for hooks on their parts before they
    # take a shorter way, cannot go wrong by it.
    holds = module._modules or module._parameters or module._buffers
    return _set(module, hook, light=not holds and type(module).__module__.startswith("torch.nn.modules."))


@contextmanager
def observing(model: nn.Module, names: Iterable[str], see: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call see(name, output) each time a named module has run; what it returns, if anything, replaces the output."""

    def observed(name: str) -> Handle:
        module = model.get_submodule(name)
        # Around layers that learn there is no shorter way.
        light = type(module) is nn.Linear and module.weight.requires_grad and torch.is_grad_enabled()
        return _set(module, lambda _module, _inputs, output: see(name, output), light)

    handles = list(map(observed, names))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _set(module: nn.Module, hook: Hook, light: bool) -> Handle:
    # There is one around `forward` at most, so that hooks can go in any order.
    if light and not module._forward_hooks and "forward" not in vars(module):
        return _Around(module, hook)
    return module.register_forward_hook(hook)


class _Around:
    """Stands around a module's `forward`, since a hook of torch's own takes four times as long to call.

    It does so by a method of that module: any other object would be to the compiler another one in each network.
    """

    def __init__(self, module: nn.Module, hook: Hook) -> None:
        self.module, self.forward = module, MethodType(_hooked, module)
        vars(module).update(feedalign_hook=hook, forward=self.forward)

    def remove(self) -> None:
        # Unless another one has come around it since.
        if vars(self.module).get("forward") is self.forward:
            del self.module.forward, self.module.feedalign_hook


def _hooked(module: Any, *args: Any, **kwargs: Any) -> Any:
    output = type(module).forward(module, *args, **kwargs)
    instead = module.feedalign_hook(module, args, output)
    return output if instead is None else instead
