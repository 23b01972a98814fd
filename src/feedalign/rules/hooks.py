"""Forward hooks as light as a small network's step wants them."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Protocol

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
    # There is one around `forward` at most, so that hooks can go in any order.
    if module._forward_hooks or "forward" in vars(module):
        return module.register_forward_hook(hook)
    return _Around(module, hook)


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
