"""Batches with padding for small models of sequences, and at which points the padding is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tests.cases.models import floats, labels
from tests.cases.padded_models import (
    Convolved,
    Encoder,
    FromDict,
    LastWord,
    Raw,
    Recurrent,
    Torch,
    Words,
    end,
    first,
    greatest,
    last,
    logits_of,
    mean,
)
from torch import Tensor, nn

import feedalign as fa

BATCH, TOKENS = 6, 9
REAL = torch.arange(TOKENS) < torch.tensor([[3], [5], [9], [2], [1], [4]])  # [batch, token]
LEFT = REAL.flip(1)
MIXED = torch.where(torch.arange(BATCH)[:, None] % 2 == 0, REAL, LEFT)
EVERY = torch.ones_like(REAL)
KINDS = (torch.arange(TOKENS) % 2 == 0).expand(BATCH, TOKENS)


@dataclass
class Padded:
    """A model, and batches of it: real tokens that are always the same, and padding of any content."""

    make: Callable[[], nn.Module]
    points: tuple[str, ...]
    given: Callable[[Tensor, Tensor], tuple[tuple[Any, ...], dict[str, Any]]]  # of the numbers and the real tokens
    masks: tuple[Tensor, ...] = (REAL,)
    masked: tuple[str, ...] | None = None  # points at which padding is left out; None for all

    def wrapped(self, rule: Any = fa.DFA, **options: Any) -> Any:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = self.make().double()
        return rule(model, points=self.points, seed=0, **options)

    def named(self, real: Tensor, rule: Any = fa.DFA, **options: Any) -> Any:
        """Return the same with the padding of this batch named, at the points at which it is left out."""
        masked = self.points if self.masked is None else self.masked
        return self.wrapped(rule, mask=dict.fromkeys(masked, lambda *_: real), **options)


def data(real: Tensor, content: int = 1) -> Tensor:
    """Numbers of the real tokens, always the same; `content` is the seed of what stands in the padding."""
    own = floats(BATCH, TOKENS, 4)
    return torch.where(real[..., None], own, 5 * floats(BATCH, TOKENS, 4, seed=content)).double()


def positional(of: Callable[[Tensor], Tensor] = lambda real: real) -> Any:
    return lambda x, real: ((x, of(real)), {})


def keyword(name: str, of: Callable[[Tensor], Tensor] = lambda real: real) -> Any:
    return lambda x, real: ((x,), {name: of(real)})


def words(x: Tensor, real: Tensor, filler: int) -> tuple[tuple[Tensor], dict[str, Any]]:
    """Tokens between 2 and 10 where they are real. `x` says nothing: padding has one content."""
    return (torch.where(real, 2 + labels(BATCH * TOKENS, classes=9).reshape(BATCH, TOKENS), filler),), {}


def added(real: Tensor) -> Tensor:
    return torch.where(real, 0.0, -1e9).double()


BLOCKS = ("blocks.0", "blocks.1", "body")
SIDES = (REAL, LEFT, MIXED)
CASES: dict[str, Padded] = {
    "mean, true is real": Padded(lambda: Encoder(mean), BLOCKS, positional(), masks=SIDES),
    "mean, whole numbers": Padded(lambda: Encoder(mean), BLOCKS, keyword("mask", Tensor.long), masks=SIDES),
    "mean, numbers": Padded(lambda: Encoder(mean), BLOCKS, positional(Tensor.double), masks=SIDES),
    "mean, true is padding": Padded(
        lambda: Encoder(mean, torch.logical_not), BLOCKS, positional(torch.logical_not), masks=SIDES
    ),
    "mean, one is padding": Padded(
        lambda: Encoder(mean, torch.logical_not), BLOCKS, keyword("mask", lambda real: (~real).long()), masks=SIDES
    ),
    "mean, without attention": Padded(
        lambda: Encoder(mean, attention=False), ("into", "body"), positional(), masks=SIDES
    ),
    "mean, one axis more": Padded(
        lambda: Encoder(mean, lambda mask: mask[..., 0]), BLOCKS, positional(lambda real: real[..., None]), masks=SIDES
    ),
    "a mask to be added": Padded(lambda: Encoder(mean, logits_of), BLOCKS, positional(added), masks=SIDES),
    "a mask to be added as it is": Padded(Raw, BLOCKS, positional(added)),
    "a mask to be added, four axes": Padded(Raw, BLOCKS, positional(lambda real: added(real)[:, None, None])),
    "in a dict": Padded(lambda: FromDict(mean), BLOCKS, lambda x, real: (({"x": x, "mask": real},), {}), masks=SIDES),
    "first token": Padded(lambda: Encoder(first), BLOCKS, positional()),
    "first token, last block alone": Padded(lambda: Encoder(first), ("blocks.1",), positional()),
    "first token, after the last block": Padded(lambda: Encoder(first), ("body",), positional()),
    "greatest": Padded(lambda: Encoder(greatest), BLOCKS, positional(), masks=SIDES),
    "greatest, without attention": Padded(
        lambda: Encoder(greatest, attention=False), ("into", "body"), positional(), masks=SIDES
    ),
    "last real token": Padded(lambda: Encoder(last, attention=False), ("into", "body"), positional()),
    "last real token, causal": Padded(lambda: Encoder(last, causal=True), BLOCKS, positional()),
    "last token, causal, padding at the left": Padded(
        lambda: Encoder(end, causal=True), BLOCKS, positional(), masks=(LEFT,)
    ),
    "rectified": Padded(lambda: Encoder(mean, activation=torch.relu), BLOCKS, positional(), masks=SIDES),
    "words": Padded(lambda: Words(0), BLOCKS, lambda x, real: words(x, real, 0), masks=SIDES),
    "words, filler told": Padded(lambda: Words(1, True), BLOCKS, lambda x, real: words(x, real, 1), masks=SIDES),
    "last word": Padded(LastWord, BLOCKS, lambda x, real: ((words(x, real, 1)[0][0], real.long()), {})),
    "recurrent": Padded(lambda: Recurrent(False), ("into", "rnn"), positional()),
    "recurrent, last state": Padded(lambda: Recurrent(False, last), ("into", "rnn"), positional()),
    "recurrent, both ways": Padded(lambda: Recurrent(True), ("into", "rnn"), positional(), masked=("rnn",)),
    "convolved": Padded(Convolved, ("below", "above"), positional(), masked=("above",)),
    "torch's own, first token": Padded(
        Torch, ("into", "encoder.layers.0", "encoder.layers.1"), keyword("padding", torch.logical_not)
    ),
    "torch's own, mean": Padded(
        lambda: Torch(mean), ("into", "encoder.layers.0", "encoder.layers.1"), keyword("padding", torch.logical_not)
    ),
}
