"""`undisturbed`: whatever a model does within, its buffers, its modes and all random states are as before."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from tests.cases.small import batch, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.anatomy import evaluating, undisturbed


class Restless(nn.Module):
    """Draws from every generator, writes into one buffer and puts a new Tensor in the place of another one."""

    written: Tensor
    assigned: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("assigned", torch.zeros(2))

    def forward(self, h: Tensor) -> Tensor:
        noise = float(torch.rand(())) + random.random() + np.random.rand()  # noqa: NPY002 — the global state is meant
        self.written += 1
        self.assigned = self.assigned + 1
        return h * (1 + noise)


def restless() -> Any:
    first, act, *rest = network()
    return nn.Sequential(first, Restless(), act, nn.Dropout(0.5), *rest)


def states() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), kind, list(keys), *rest


def run(net: Any) -> None:
    net(batch()[0])


def running(net: Any) -> None:
    with undisturbed(net, net.model):
        run(net)


def monitored(net: Any) -> None:
    fa.AlignmentMonitor(net, functional.cross_entropy, *batch()).measure(0)


def failing(net: Any) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), undisturbed(net, net.model):
        nn.Sequential(net, nn.Linear(1, 1).double())(batch()[0])  # fails after the net has run


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.FA])
@pytest.mark.parametrize("act", [running, failing, monitored])
def test_buffers_modes_and_random_states_are_as_before(act: Callable[[Any], None], rule: Any) -> None:
    model = restless()
    net = rule(model, example_input=batch()[0])
    model[3].eval()
    buffers = dict(model.named_buffers())
    values = copy.deepcopy(net.state_dict())
    before, modes = states(), [module.training for module in net.modules()]
    act(net)
    assert states() == before
    assert [module.training for module in net.modules()] == modes
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name]  # whoever holds the Tensor, such as an optimizer's average, still holds it
    for name, value in net.state_dict().items():
        assert torch.equal(value, values[name])


def test_within_the_net_is_evaluated_without_autocast() -> None:
    net = fa.DFA(network())
    with torch.autocast("cpu", dtype=torch.bfloat16), undisturbed(net, net.model):
        assert not any(module.training for module in net.modules())
        assert not torch.is_autocast_enabled("cpu")


def test_two_threads_that_evaluate_leave_torchs_short_way_as_it_was() -> None:
    """The switch is one for all threads: the thread that began last must not put back what it has found."""
    begun, ended = Barrier(2, timeout=10), Barrier(2, timeout=10)

    def first() -> None:
        with evaluating(network()):
            begun.wait()
            ended.wait()

    def last() -> None:
        begun.wait()
        with evaluating(network()):
            ended.wait()
            first_is_done.result(timeout=10)

    assert torch.backends.mha.get_fastpath_enabled()
    with ThreadPoolExecutor(2) as pool:
        first_is_done = pool.submit(first)
        pool.submit(last).result()
    assert torch.backends.mha.get_fastpath_enabled()
