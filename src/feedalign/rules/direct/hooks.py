"""The hooks that a direct rule sets on the modules of a model, and what a pass must do when one of them calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import BackwardHook

from feedalign.anatomy import Problem
from feedalign.errors import PointsError
from feedalign.rules.slot import Hooks, Slot
from feedalign.torch_private import backward_hooks


class CuttingPass:
    """A pass that cuts the graph at the points.

    Attributes:
        calling: of the points, and of the modules around points, that are running now and have backward hooks of the
            user's, the innermost last: the name of the module, and what calls its hooks.
        ran: names of the modules with parameters that have run since the last point.
        names: of the points reached so far; a module that runs twice is here twice.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.calling: list[tuple[str, BackwardHook]] = []
        self.ran: set[str] = set()

    def watch(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Begin to call a module's backward hooks; return what goes on in the inputs' place, to see their gradient."""
        full, early, _ = backward_hooks(module)
        hook = BackwardHook(module, full, early)
        self.calling.append((name, hook))
        seen: tuple[Any, ...] = hook.setup_input_hook(inputs)
        return seen

    def watched(self, name: str) -> BackwardHook | None:
        """Return what calls the backward hooks of a module that has just run; None if the module has none."""
        return self.calling.pop()[1] if self.calling and self.calling[-1][0] == name else None

    def seen(self, name: str, output: Any) -> Any:
        """Return what goes on in the output's place of a point that has just run, so that its hooks are called."""
        hook = self.watched(name)
        return output if hook is None else hook.setup_output_hook(output)

    def entering(self, name: str, module: nn.Module) -> None:
        """Note that a module around points begins to run, and that the module has backward hooks."""

    def leaving(self, name: str, module: nn.Module, hook: BackwardHook, output: Any) -> None:
        """See that the backward hooks of a module around points are called, if the module ends with a point."""

    def taken(self, _place: str, _tensor: Tensor | Problem) -> Tensor | None:
        """Return what goes on where the error is taken, inside of the pass; None for the Tensor itself."""
        return None


class PointHooks(Hooks):
    """The two hooks of one point. The pass that is running says what goes on in the output's place.

    Torch calls the backward hooks of a module where the gradient passes what the module returned. The graph is cut
    inside of that call, so torch would never call them. They are called here instead, below the cut, with what the rule
    sends.
    """

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return what goes on in the inputs' place, so that the gradient of the inputs is seen; None for the same."""
        running = self.slot.now
        if not isinstance(running, CuttingPass):
            return None
        full, early, deprecated = backward_hooks(module)
        if deprecated:
            raise PointsError(
                f"point {self.name!r} has a backward hook of the kind that torch has deprecated, which would never be "
                "called; set the hook with register_full_backward_hook"
            )
        return running.watch(self.name, module, inputs) if full or early else None

    def after(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Return what goes on in the output's place; None for the output itself."""
        running = self.slot.now
        return None if running is None else running.reached(self.name, output)


class RanHook(Hooks):
    """The hook of a module with parameters, which notes that the module has run."""

    def __call__(self, *_: Any) -> None:
        """Note the module in the pass that is running."""
        running = self.slot.running
        if isinstance(running, CuttingPass):
            running.ran.add(self.name)


class AtPlaces:
    """What the hooks call at the modules where the error is taken: the pass that is running says what goes on."""

    __slots__ = ("slot",)

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def see(self, place: str, tensor: Tensor | Problem) -> Tensor | None:
        """Return what goes on in the Tensor's place; None for the Tensor itself."""
        running = self.slot.now
        return running.taken(place, tensor) if isinstance(running, CuttingPass) else None


class GroupNormHook:
    """The hook before a group norm runs: gives an input that begins a block in the usual memory format.

    In torch 2.13, the backward pass of group norm ends the process (SIGSEGV) where the input lies on the CPU, is stored
    channels last and needs no gradient. The input needs none where the group norm comes first after a point.
    """

    __slots__ = ("slot",)

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return what goes on in the inputs' place; None for the same."""
        if torch.compiler.is_compiling() or not isinstance(self.slot.now, CuttingPass):
            return None
        begins = bool(inputs) and isinstance(inputs[0], Tensor) and not inputs[0].requires_grad
        return (inputs[0].contiguous(), *inputs[1:]) if begins else None
