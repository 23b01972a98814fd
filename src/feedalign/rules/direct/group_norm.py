"""A fault of torch that a cut would meet: group norm, on the CPU, of images that are stored channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from feedalign.rules.direct.point_hooks import CuttingPass
from feedalign.rules.slot import Slot


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
