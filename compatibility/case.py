"""One model of the suite: how it is made, what it is given, and which of its modules are the points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model with random weights, as a user would wrap it.

    Attributes:
        library: the package that the model comes from.
        name: of the model, for the table.
        make: returns a new model.
        inputs: returns the inputs by keyword, or one Tensor.
        layers: dotted names of the lists whose modules are the points of the direct rules, such as "encoder.layers". A
            name that ends with "!" is itself one point.
        output: the entry of the output at which the error is taken; None where the model returns one Tensor.
        batch_dims: of the direct rules.
    """

    library: str
    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    layers: tuple[str, ...]
    output: str | None = None
    batch_dims: int | None = None

    def points(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the points of the direct rules."""
        found: list[str] = []
        for name in self.layers:
            if name.endswith("!"):
                found.append(name.removesuffix("!"))
            else:
                found += [f"{name}.{child}" for child, _ in model.get_submodule(name).named_children()]
        return tuple(found)

    def error_at(self, output: Any) -> Tensor:
        """Return the Tensor at which the error is taken."""
        found: Tensor = output if self.output is None else output[self.output]
        return found


def tokens(length: int = 6, batch: int = 3) -> Tensor:
    """Return random tokens [batch, length] of 40; the first four mean padding, begin and end, and are left out."""
    return torch.randint(4, 40, (batch, length), generator=_generator())


def signal(*shape: int) -> Tensor:
    """Return random numbers of this shape."""
    return torch.randn(shape, generator=_generator())


def image(side: int) -> Tensor:
    """Return three random images [3, 3, side, side]."""
    return signal(3, 3, side, side)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
