"""Large activations: each signal is made when its block's turn comes, and the gradients stay those of the rule."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import pytest
import torch
from tests.cases.small import EXACT
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign.rules.direct.cut import LARGE

WIDE = LARGE // 128  # with a batch of 128, each signal is made when its block's turn comes


OPTIONS: list[Any] = [
    (fa.DFA, {}),
    (fa.DFA, {"error": "sign"}),
    (fa.DRTP, {}),
    (fa.DFA, {"batch_dims": 1}),
    (fa.ConditionedDFA, {"every": 1}),
    (fa.DirectKolenPollack, {}),
]


@pytest.mark.parametrize(("rule", "options"), OPTIONS)
def test_large_signals_are_those_of_the_rule(rule: Any, options: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 3, generator=generator), torch.arange(128) % 3
    net = rule(fa.networks.MLP([3, WIDE, WIDE // 16, WIDE, 3], seed=0), **options)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12


class Spied(Tensor):
    """A feedback matrix that watches its products: how many signals were made, and how many are alive at a time."""

    made: ClassVar[list[weakref.ref[Tensor]]] = []
    most: ClassVar[int] = 0

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result: Any = super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        if function is functional.linear:
            result = result.as_subclass(Tensor)
            cls.made.append(weakref.ref(result))
            cls.most = max(cls.most, sum(one() is not None for one in cls.made))
        return result


def test_one_large_signal_exists_at_a_time() -> None:
    net = fa.DFA(fa.networks.MLP([3, WIDE, 5, WIDE, 5, WIDE, 3], seed=0))
    for name, buffer in list(net.feedback.named_buffers()):
        if len(buffer) == WIDE:
            setattr(net.feedback, name, buffer.as_subclass(Spied))
    functional.cross_entropy(net(torch.ones(128, 3)), torch.arange(128) % 3).backward()
    assert (len(Spied.made), Spied.most) == (3, 1)


@pytest.mark.parametrize("width", [5, WIDE])
def test_what_else_comes_to_an_activation_is_added(width: int) -> None:
    """A loss on the activation itself, in the same backward pass or in another one."""
    x, y = torch.ones(128, 3).double(), torch.arange(128) % 3
    found = []
    for together in (True, False):
        seen: list[Tensor] = []
        model: Any = fa.networks.MLP([3, width, 3], seed=0).double()
        model[1].register_forward_hook(lambda _module, _inputs, h, seen=seen: seen.append(h))
        net = fa.DFA(model)
        error, other = functional.cross_entropy(net(x), y), seen[-1].square().mean()
        if together:
            (error + other).backward()
        else:
            error.backward(retain_graph=True)
            other.backward()
        found.append([p.grad for p in net.parameters()])
    alone = torch.autograd.grad(functional.cross_entropy(net(x), y), list(net.parameters()))
    h = model[1](model[0](x))
    added = torch.autograd.grad(h.square().mean(), list(model[0].parameters()))
    for one, other_way, sent, more in zip(*found, alone, [*added, 0, 0], strict=True):
        torch.testing.assert_close(one, other_way, **EXACT)
        torch.testing.assert_close(one, sent + more, **EXACT)
