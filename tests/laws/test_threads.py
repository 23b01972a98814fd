"""Threads: what one thread does with a net changes no bit of what another thread does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from tests.cases.small import FIXED_AND_LEARNED, assert_same, batch, left_by_backward, network, trained
from torch import Tensor, nn
from torch.nn import functional

STEPS = 5


class Meets(nn.Module):
    """The identity, which waits in every forward pass until the other thread has come to the same place."""

    def __init__(self, meet: Callable[[], object]) -> None:
        super().__init__()
        self.meet = meet

    def forward(self, h: Tensor) -> Tensor:
        self.meet()
        return h


def meeting(meet: Callable[[], object]) -> Any:
    """Return a network that meets between its two points, so that both threads are in a forward pass at once."""
    first, act, second, other_act, readout = network()
    return nn.Sequential(first, act, Meets(meet), second, other_act, readout)


def alone(rule: Any, seed: int = 0) -> Any:
    return rule(meeting(lambda: None), example_input=batch()[0], seed=seed)


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_two_threads_train_two_nets_as_each_does_alone(rule: Any) -> None:
    barrier = Barrier(2, timeout=10)
    nets = [rule(meeting(lambda: None), example_input=batch()[0], seed=seed) for seed in range(2)]
    for net in nets:
        net.model[2].meet = barrier.wait
    with ThreadPoolExecutor(2) as pool:
        states = list(pool.map(lambda net: trained(net, steps=STEPS), nets))
    for seed, state in enumerate(states):
        assert_same(state, trained(alone(rule, seed), steps=STEPS))


@pytest.mark.parametrize("how", ["without gradients", "under backprop"])
@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_one_thread_trains_while_another_evaluates_the_same_net(rule: Any, how: str) -> None:
    """Both are in the same forward pass at the same time. The second one asks for no rule, and gets none."""
    barrier = Barrier(2, timeout=10)
    net = alone(rule)
    net.model[2].meet = barrier.wait
    x, y = batch(seed=7)
    bare = meeting(lambda: None)

    def train() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for step in range(STEPS):
            net.zero_grad()
            u, v = batch(seed=step)
            functional.cross_entropy(net(u), v).backward()
            found |= {f"{step}.{name}": gradient for name, gradient in left_by_backward(net).items()}
        return found

    def evaluate() -> list[tuple[Tensor, ...]]:
        seen: list[tuple[Tensor, ...]] = []
        for _ in range(STEPS):
            if how == "without gradients":
                with torch.no_grad():
                    seen.append((net(x),))
            else:
                with net.backprop():
                    output = net(x)
                loss = functional.cross_entropy(output, y)
                seen.append((output, *torch.autograd.grad(loss, list(net.model.parameters()))))
        return seen

    with ThreadPoolExecutor(2) as pool:
        training, evaluating = pool.submit(train), pool.submit(evaluate)
        found, seen = training.result(), evaluating.result()
    net = alone(rule)
    assert_same(found, train())
    output = bare(x)
    true = torch.autograd.grad(functional.cross_entropy(output, y), list(bare.parameters()))
    for one in seen:
        for got, expected in zip(one, (output, *true), strict=False):
            assert torch.equal(got, expected)
    assert len(seen[0]) == (1 if how == "without gradients" else 1 + len(true))
