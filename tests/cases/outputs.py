"""Models that return their logits among other things: in tuples, dicts, dataclasses and what is nested of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn


class Named(NamedTuple):
    logits: Tensor
    hidden: Tensor


@dataclass
class Fields:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    note: str = "kept"


class Both(OrderedDict[str, Any]):
    """A dict whose keys are attributes too, as some libraries' model outputs are."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.__dict__[key] = value


MAKERS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any]] = {
    "tuple": (lambda logits, h: (h, logits), 1),
    "list": (lambda logits, h: [logits, {"h": h}], 0),
    "dict": (lambda logits, h: {"logits": logits, "aux": (h, 3), "none": None}, "logits"),
    "named tuple": (lambda logits, h: Named(logits, h), "logits"),
    "dataclass": (lambda logits, h: Fields(logits, (h,)), "logits"),
    "dict with attributes": (lambda logits, h: Both(logits=logits, hidden=h), "logits"),
    "nested": (lambda logits, h: {"heads": [h, (logits,)]}, lambda out: out["heads"][1][0]),
}


class Structured(nn.Module):
    """An MLP that returns its logits among other things."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.hidden, self.readout, self.aux = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)
        self.gate = nn.Tanh()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        h = self.gate(self.hidden(x))
        return self.make(self.readout(h), self.aux(h))


def flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Fields):
        return [output.logits, *output.hidden]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return [tensor for value in values for tensor in flat(value)]
