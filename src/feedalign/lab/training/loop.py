"""The training loop: it never changes; what an experiment wants to see or do arrives as a callback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


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
    """
    step = 0
    for _ in range(epochs):
        for indices in _batches(len(inputs), batch_size, order):
            if before_step is not None:
                before_step(step)
            optimizer.zero_grad(set_to_none=True)
            loss_fn(net(inputs[indices]), labels[indices]).backward()
            optimizer.step()
            step += 1
    if before_step is not None:
        before_step(step)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: networks of a few hundred units lose more by splitting than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Return how many steps an epoch takes."""
    return math.ceil(samples / batch_size)


def _batches(samples: int, batch_size: int, order: torch.Generator | Sequence[torch.Generator]) -> Iterator[Tensor]:
    if isinstance(order, torch.Generator):
        shuffled = torch.randperm(samples, generator=order)
    else:
        shuffled = torch.stack([torch.randperm(samples, generator=generator) for generator in order])
    yield from torch.split(shuffled, batch_size, dim=-1)
