"""Run a model and leave no trace: its buffers, its modes and all random numbers are put back."""

from __future__ import annotations

import copy
import random
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


class RandomNumbers:
    """The random states of torch (on the CPU and on the model's devices), numpy and Python as they are now."""

    def __init__(self, model: nn.Module) -> None:
        devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
        self.torch = torch.get_rng_state()
        self.cuda = {device: torch.cuda.get_rng_state(device) for device in devices}
        self.numpy = np.random.get_state()  # noqa: NPY002 — the global state, which models use
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


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Within this context the net is in evaluation mode; afterwards the net and all random states are as before.

    Autocast is off within. Modes, buffers (batch statistics, learned feedback) and the random states of torch, numpy
    and Python are put back. State that a module keeps outside of its buffers is not known and stays changed.
    """
    buffers = Buffers(net)
    device = next(net.parameters()).device.type
    try:
        with evaluating(net), same_random_numbers(net), torch.autocast(device, enabled=False):
            yield
    finally:
        buffers.restore()
