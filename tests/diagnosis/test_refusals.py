"""`fa.diagnose` refuses what it cannot diagnose in words, before any training, and never hangs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
BATCHES = [(X[:20], Y[:20]), (X[20:], Y[20:])]


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def diagnose(net: Any = None, loss: Any = functional.cross_entropy, batches: Any = BATCHES, **options: Any) -> Any:
    return fa.diagnose(model() if net is None else net, loss, batches, **{"steps": 3, **options})


def frozen() -> nn.Module:
    return model().requires_grad_(False)


class Uncopiable(nn.Sequential):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle a lock")


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.readout = nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(*[self.readout(self.act(self.first(x)))] * 2)


class TwiceOnly:
    """Begins anew once, then is empty: as a data set that keeps its place does."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __iter__(self) -> Iterator[Any]:
        self.passes -= 1
        return iter(BATCHES if self.passes >= 0 else [])


def second_raises(error: BaseException) -> Any:
    def batches() -> Iterator[Any]:
        yield BATCHES[0]
        raise error

    return batches


def exits(*_: Any) -> Any:
    sys.exit(0)


def empty_for_ever() -> Iterator[Any]:
    while True:
        yield X[:0], Y[:0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"net": 3}, "net is a int, expected a torch.nn.Module"),
        ({"net": fa.FA(model())}, "wrapped in FA, which sends no error straight to a layer"),
        ({"net": frozen()}, "no parameter of the model requires a gradient"),
        ({"net": nn.Sequential(nn.Tanh())}, "no parameter of the model requires a gradient"),
        ({"net": Uncopiable(nn.Linear(6, 3))}, "copying the model raised TypeError: cannot pickle a lock"),
        ({"net": Complex(), "points": ["act"], "loss": lambda o, _: o.abs().sum()}, "must be a floating-point Tensor"),
        ({"net": fa.DFA(model()), "points": ["1"]}, "wrapped already; points, feedback, output and batch_dims"),
        ({"net": fa.DFA(model()), "feedback": fa.feedback.Gaussian()}, "wrapped already"),
        ({"net": fa.DFA(model()), "compare": True}, "give the bare model to compare"),
        ({"points": ["one"]}, "name the points"),
        ({"points": []}, "name the points"),
        ({"feedback": "gaussian"}, "feedback='gaussian' is no recipe"),
        ({"loss": "cross_entropy"}, "loss_fn='cross_entropy' is no function"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "loss_fn must give one number with a gradient"),
        ({"loss": lambda o, y: functional.cross_entropy(o.detach(), y)}, "requires_grad=False"),
        ({"loss": lambda o, _: 0 * o.sum()}, "so there is nothing to learn from"),
        ({"loss": lambda o, y: functional.cross_entropy(o, y) * float("nan")}, "zero or not finite"),
        ({"loss": exits}, "model or loss function, on the first samples, raised SystemExit"),
        ({"batches": 3}, "batches is a int, expected pairs"),
        ({"batches": "abc"}, "batches is a str, expected pairs"),
        ({"batches": X}, "batches is a Tensor, expected pairs"),
        ({"batches": []}, "what was given to iterate over is empty"),
        ({"batches": lambda: None}, "iterating over the batches raised TypeError"),
        ({"batches": iter(BATCHES)}, "the batches can be iterated only once"),
        ({"batches": [X]}, "batch 0 is a Tensor, expected a pair"),
        ({"batches": [*BATCHES, (X, Y, Y)], "samples": 100, "probe": 30}, "batch 2 is a tuple of 3"),
        ({"batches": [(X[:0], Y[:0])]}, "batch 0 holds no samples"),
        ({"batches": empty_for_ever}, "batch 0 holds no samples"),
        ({"batches": TwiceOnly(2)}, "is empty"),
        ({"batches": TwiceOnly(3), "steps": 5}, "empty the second time; it must begin anew"),
        ({"batches": [(X, ["cat"] * 40)]}, "model or loss function, on the first samples, raised TypeError"),
        ({"batches": [(X[:, :3], Y)]}, "model or loss function, on the first samples, raised RuntimeError"),
        ({"batches": [BATCHES[0], (X[:, :3], Y)]}, "on batch 1, raised RuntimeError"),
        ({"batches": [(X * float("nan"), Y)]}, "zero or not finite"),
        ({"batches": second_raises(RuntimeError("disk"))}, "reading batch 1 raised RuntimeError: disk"),
        ({"batches": second_raises(SystemExit(3))}, "reading batch 1 raised SystemExit: 3"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number of at least 1, got 2.5"),
        ({"steps": True}, "steps must be a whole number of at least 1, got True"),
        ({"samples": 0}, "samples must be a whole number of at least 1, got 0"),
        ({"probe": 0}, "probe must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0.*got -1"),
        ({"seed": 2**64}, r"seed must be a whole number of at least 0 and at most 18446744073709551615"),
        ({"lr": float("nan")}, "lr must be a finite number above 0, got nan"),
        ({"lr": "fast"}, "lr must be a finite number above 0, got 'fast'"),
    ],
)
def test_misuse_is_refused_with_a_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        diagnose(**arguments)


def test_too_many_outputs_are_refused_before_matrices_of_them_are_made() -> None:
    net = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 20_000))
    with pytest.raises(ArgumentError, match="20000 outputs, and a diagnosis makes matrices of outputs by outputs"):
        diagnose(net)


def test_a_keyboard_interrupt_is_the_users() -> None:
    with pytest.raises(KeyboardInterrupt, match="stop"):
        diagnose(batches=second_raises(KeyboardInterrupt("stop")))


def test_batches_that_do_not_end_are_read_as_far_as_needed() -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield from BATCHES

    found = diagnose(batches=endless, samples=50, probe=30)
    assert (found.samples, found.probe) == (60, 30)


def test_a_model_with_some_frozen_weights_is_diagnosed() -> None:
    net = model()
    net[0].requires_grad_(False)  # type: ignore[index]
    assert not diagnose(net).diverged
