"""A small network in float64, a batch for it, what a backward pass leaves, and how two results are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa

# Sums of some ten products in float64, taken in another order, agree to a few units in the last place.
EXACT: Any = {"rtol": 1e-11, "atol": 1e-13}
# The largest error that `check_rule` may report: float64's own precision, times the terms of a sum of small shapes.
ROUNDING = 1e-12

FIXED: list[Any] = [fa.DFA, fa.FA]
LEARNED: list[Any] = [fa.KolenPollack, fa.DirectKolenPollack, fa.ConditionedDFA]
FIXED_AND_LEARNED = [*FIXED, *LEARNED]


def network(*sizes: int, activation: str = "tanh", bias: bool = True, seed: int = 0) -> Any:
    """Return a dense network in float64; 5 inputs, two hidden layers and 3 outputs unless sizes are given."""
    return fa.networks.MLP(sizes or (5, 8, 6, 3), activation=activation, bias=bias, seed=seed).double()


def batch(n: int = 12, seed: int = 0, *, inputs: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Return inputs [n, inputs] in float64 and labels [n]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


def gradients(net: nn.Module, x: Any, y: Tensor, reduction: str = "mean") -> dict[str, Tensor]:
    """Return the gradients of one backward pass alone, by the names that the bare model has for its parameters."""
    net.zero_grad()
    functional.cross_entropy(net(x), y, reduction=reduction).backward()
    return left_by_backward(net)


def left_by_backward(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every gradient there is, by the names that the bare model has for its parameters."""
    return {
        name.removeprefix("_orig_mod.").removeprefix("model."): parameter.grad.clone()
        for name, parameter in net.named_parameters()
        if parameter.grad is not None
    }


def trained(net: nn.Module, run: Callable[[Tensor], Tensor] | None = None, steps: int = 3) -> dict[str, Tensor]:
    """Return the state, feedback included, after a few steps; `run` is how the net is called, if not as itself."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        x, y = batch(seed=step)
        optimizer.zero_grad()
        functional.cross_entropy(net(x) if run is None else run(x), y).backward()
        optimizer.step()
    return net.state_dict()


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], **tolerance: Any) -> None:
    """Hold that two results have the same names and the same numbers: to the bit, unless a tolerance is given."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}), msg=partial("{}: {}".format, name)
        )


def hooks_on(model: nn.Module) -> list[str]:
    """Return where a hook, or a `forward` of its own, stands on the model.

    torch has no public list of hooks, so every attribute whose name speaks of hooks is looked at.
    """
    return [
        f"{name}.{key}"
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key == "forward" or ("hooks" in key and hasattr(value, "__len__") and len(value))
    ]


def dfa_and_batch(activation: str = "tanh", n: int = 9) -> tuple[fa.DFA, Tensor, Tensor]:
    """Return a network of two hidden layers under DFA, in float64, and a batch for it."""
    generator = torch.Generator().manual_seed(0)
    net = fa.DFA(fa.networks.MLP([5, 8, 6, 3], activation, seed=1), seed=2).double()
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return net, x, torch.randint(3, (n,), generator=generator)
