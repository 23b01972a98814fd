"""Models that torch has recorded or compiled into another form: no rule runs in them, so they are refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, FIXED_AND_LEARNED, batch, network
from torch import Tensor, nn

import feedalign as fa
from feedalign.errors import ArgumentError

RECORD: dict[str, Callable[[Any, Tensor], Any]] = {
    "torch.export": lambda net, x: torch.export.export(net, (x,), strict=False).module(),
    "torch.export, strict": lambda net, x: torch.export.export(net, (x,), strict=True).module(),
    "torch.jit.trace": lambda net, x: torch.jit.trace(net, x),
}
# Torch's own words: torch.jit is to go, and a trace is no program.
QUIET = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]
pytestmark = QUIET


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
@pytest.mark.parametrize("way", RECORD)
def test_a_learning_pass_is_not_recorded(way: str, rule: Any) -> None:
    with pytest.raises(Exception, match=f"what {rule.__name__} sends is no part of the record"):
        RECORD[way](rule(network()), batch()[0])


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
@pytest.mark.parametrize("way", RECORD)
def test_without_gradients_the_record_is_that_of_the_bare_model(way: str, rule: Any) -> None:
    net, (x, _) = rule(network()), batch()
    with torch.no_grad():
        torch.testing.assert_close(RECORD[way](net, x)(x), net(x), **EXACT)


def test_torch_fx_is_told_so_too() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.gate, self.readout = nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.readout(self.gate(self.hidden(x)))

    with pytest.raises(ArgumentError, match="what FA sends is no part of the record"):
        torch.fx.symbolic_trace(fa.FA(Plain()))
    recorded = torch.fx.symbolic_trace(Plain())  # the other way round the rule runs
    assert fa.check_rule(fa.FA(recorded), nn.functional.cross_entropy, *batch()).worst < 1e-12


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda model: torch.jit.trace(model, batch()[0])])
def test_a_model_of_torch_jit_is_refused(compiled: Any) -> None:
    model = compiled(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double())
    for use in (fa.DFA, fa.FA, lambda each: fa.validate(each, ("1",), batch()[0])):
        with pytest.raises(ArgumentError, match=r"compiled by torch\.jit, whose modules run no hooks"):
            use(model)
