"""The slot of a wrapped model: which pass is running. The hooks on the model look at nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from feedalign.rules.saving import NotPickled
from feedalign.torch_private import backward_pass


class Slot(NotPickled, threading.local):
    """Which pass of one wrapped model is running in this thread.

    The hooks on the model hold the slot, so the model inside of a rule cannot be pickled either.

    Attributes:
        running: the pass whose forward pass is running; None outside of one.
        backprop: the pass that takes the rule's place within `Wrapped.backprop`; None outside of that context.
    """

    running: Any = None
    backprop: Any = None

    _begin: Any = None
    _repeat: Any = None
    _backward: int = -1

    def enter_backward(self, repeat: Callable[[], Any]) -> None:
        """Note that a backward pass has come to the rule's graph.

        If activation checkpointing now repeats a part of the forward pass, the part runs under the pass `repeat()`. It
        must save the same Tensors as the first time, so that pass cuts the graph at the same places.
        """
        self._repeat, self._begin, self._backward = None, repeat, backward_pass()

    @property
    def now(self) -> Any:
        """The pass that a module runs in now: a forward pass, or a part of one that checkpointing repeats, or None."""
        running = self.running
        if running is not None or self._backward < 0 or torch.compiler.is_compiling():
            return running
        if self._backward != backward_pass():
            return None
        if self._repeat is None:
            self._repeat = self._begin()
        return self._repeat

    def __deepcopy__(self, memo: dict[int, Any]) -> Slot:
        return Slot()


class Hooks:
    """The hooks on one module of a wrapped model: an object, so that a copy of the model gets hooks of its own."""

    __slots__ = ("name", "slot")

    def __init__(self, slot: Slot, name: str) -> None:
        self.slot, self.name = slot, name


class Seeing:
    """A pass on the model's own graph, in which somebody may look at the points."""

    def __init__(self, see: Callable[[str, Any], Any] | None) -> None:
        self.see = see

    def reached(self, name: str, output: Any) -> Any:
        """Return what `see` makes of the output of a point."""
        return None if self.see is None else self.see(name, output)
