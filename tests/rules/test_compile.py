"""Compiled networks take the steps of uncompiled ones, and networks of one kind share what is compiled."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, FIXED_AND_LEARNED, assert_same, batch, gradients, network, trained
from torch import Tensor

# Torch's own tracing of an autograd function.
TRACED = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@TRACED
@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler"),
                pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # inductor's own
            ],
        ),
    ],
)
@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_compiled_steps_are_the_uncompiled_ones(rule: Any, backend: str) -> None:
    torch.compiler.reset()
    plain, net = rule(network()), rule(network())
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    assert_same(trained(net, compiled), trained(plain), **EXACT)


@TRACED
@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_networks_of_one_kind_share_what_is_compiled(rule: Any) -> None:
    torch.compiler.reset()
    x, y = batch()
    graphs = []

    def as_it_is(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    for seed in range(3):
        compiled: Any = torch.compile(rule(network(), seed=seed), backend=as_it_is, fullgraph=True)
        assert_same(gradients(compiled, x, y), gradients(rule(network(), seed=seed), x, y), **EXACT)
    assert len(graphs) == 1
