"""Modules without an order of their own: a test says how they run, and asks `validate` about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import feedalign as fa

X = torch.linspace(-1, 1, 8).reshape(2, 4)


class Parts(nn.Module):
    """Some modules, and a forward pass written by the test."""

    def __init__(self, run: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def parts(run: Any, **more: nn.Module) -> Any:
    return Parts(run, a=nn.Linear(4, 6), b=nn.Linear(6, 6), gate=nn.Tanh(), readout=nn.Linear(6, 3), **more)


def chain(m: Any, x: Tensor) -> Tensor:
    out: Tensor = m.readout(m.gate(m.b(m.a(x))))
    return out


def found(model: nn.Module, points: Any, *inputs: Any, **options: Any) -> list[tuple[str, str, str]]:
    return list(fa.validate(model, points, *(inputs or (X,)), **options).problems)
