"""Models that compute their loss inside, in ways that fit or do not fit a module where the error is taken."""

from __future__ import annotations

from typing import Any

from tests.cases.models import floats, labels
from tests.cases.parts import Parts
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa

X, Y = floats(5, 4), labels(5)
DIRECT: list[Any] = [fa.DFA, fa.ConditionedDFA, fa.DirectKolenPollack]


def parts(run: Any) -> Any:
    layers = {"a": nn.Linear(4, 6), "gate": nn.Tanh(), "head": nn.Linear(6, 3), "beside": nn.Linear(6, 3)}
    return Parts(run, **layers)


def logits_and_loss(m: Any, x: Tensor) -> Any:
    logits = m.head(m.gate(m.a(x)))
    return {"logits": logits, "loss": functional.cross_entropy(logits, Y)}


def twice(m: Any, x: Tensor) -> Any:
    h = m.gate(m.a(x))
    return functional.cross_entropy(m.head(h) + m.head(2 * h), Y)


def around(m: Any, x: Tensor) -> Any:
    h = m.gate(m.a(x))
    m.head(h)
    return functional.cross_entropy(m.beside(h), Y)


def both(m: Any, x: Tensor) -> Any:
    h = m.gate(m.a(x))
    return {"head": m.head(h), "beside": m.beside(h)}


def late(m: Any, x: Tensor) -> Any:
    return functional.cross_entropy(m.beside(m.gate(2 * m.head(m.a(x)) @ m.head.weight)), Y)
