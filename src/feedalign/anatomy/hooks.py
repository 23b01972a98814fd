"""Watch modules while a model runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def observing(model: nn.Module, names: Iterable[str], see: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call see(name, output) each time a named module has run; what `see` returns, unless None, replaces the output."""

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda _module, _inputs, output: see(name, output)

    with ExitStack() as handles:
        for name in names:
            handles.enter_context(model.get_submodule(name).register_forward_hook(hook_of(name)))
        yield


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
    Tensors where a mask is given.
    """
    with SHORT_WAY.off(), same_modes(model):
        model.eval()
        yield
