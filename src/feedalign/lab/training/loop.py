"""The training loop: it never changes; what an experiment wants to see or do arrives as a callback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from feedalign.lab.runs import Checkpoints
from feedalign.lab.training.state import Measurements, Position, Trained


def train(
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    order: torch.Generator | Sequence[torch.Generator],
    before_step: Callable[[int], None] | None = None,
    checkpoints: Checkpoints | None = None,
    measurements: Measurements | None = None,
) -> None:
    """Train a network, or an ensemble in which every network sees the data in an order of its own.

    The network's mode (`net.train()`, `net.eval()`) is left as it is.

    Args:
        net: any module, wrapped in a rule or not.
        inputs: [n, d].
        labels: [n]; those of a batch have the shape of its indices, [batch] or [E, batch].
        loss_fn: scalar loss of (output, label).
        optimizer: of the network's parameters.
        epochs: passes through the data.
        batch_size: samples a step; the last step of an epoch takes what is left.
        order: source of the shuffling. A sequence of E generators makes batches [E, batch, d], one row per network.
        before_step: called with the number of steps done, before each step and once after the last.
        checkpoints: where the state is saved now and then. If a state is there, the training goes on from it, and ends
            at the same bits as one that was never interrupted.
        measurements: what `before_step` gathers; saved with the state, and put back.
    """
    orders = [order] if isinstance(order, torch.Generator) else order
    trained = Trained(net, optimizer, orders, Measurements("step") if measurements is None else measurements)
    saved = checkpoints.load() if checkpoints is not None else None
    at = Position() if saved is None else trained.restore(saved)
    while at.epoch < epochs:
        then = [generator.get_state() for generator in orders]
        for indices in _batches(inputs, batch_size, order)[at.batch :]:
            if before_step is not None:
                before_step(at.step)
            optimizer.zero_grad(set_to_none=True)
            loss_fn(net(inputs[indices]), labels[indices]).backward()
            optimizer.step()
            at.batch, at.step = at.batch + 1, at.step + 1
            if checkpoints is not None and checkpoints.due():
                checkpoints.save(trained.state(at, then))
        at.epoch, at.batch = at.epoch + 1, 0
    if before_step is not None:
        before_step(at.step)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: networks of a few hundred units lose more by splitting than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def log_steps(last: int, count: int, first: float = 1e-3) -> list[int]:
    """Return 0 and up to `count` steps, evenly spaced in log time from the share `first` of the last step to the last.

    Rounding may give one step twice, which then counts once.
    """
    after = np.geomspace(max(1, last * first), last, count)
    return sorted({0, *np.rint(after).astype(int).tolist()})


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Return how many steps an epoch takes."""
    return math.ceil(samples / batch_size)


def _batches(inputs: Tensor, batch_size: int, order: torch.Generator | Sequence[torch.Generator]) -> Sequence[Tensor]:
    """Return the indices of every batch of an epoch, where the inputs are: a GPU gathers batches without waiting."""
    n = len(inputs)
    if isinstance(order, torch.Generator):
        shuffled = torch.randperm(n, generator=order)
    else:
        shuffled = torch.stack([torch.randperm(n, generator=generator) for generator in order])
    return torch.split(shuffled.to(inputs.device), batch_size, dim=-1)
