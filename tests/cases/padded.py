"""Small models of sequences with padding, which take what is padding in many ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tests.cases.models import floats, labels
from torch import Tensor, nn

import feedalign as fa

BATCH, TOKENS, WIDTH, CLASSES, WORDS = 6, 9, 8, 3, 11
REAL = torch.arange(TOKENS) < torch.tensor([[3], [5], [9], [2], [1], [4]])  # [batch, token]
LEFT = REAL.flip(1)
MIXED = torch.where(torch.arange(BATCH)[:, None] % 2 == 0, REAL, LEFT)
EVERY = torch.ones_like(REAL)
KINDS = (torch.arange(TOKENS) % 2 == 0).expand(BATCH, TOKENS)


def mean(h: Tensor, real: Tensor) -> Tensor:
    weight = real.to(h.dtype)[..., None]
    return (h * weight).sum(1) / weight.sum(1)


def greatest(h: Tensor, real: Tensor) -> Tensor:
    return h.masked_fill(~real[..., None], -torch.inf).amax(1)


def first(h: Tensor, _: Tensor) -> Tensor:
    return h[:, 0]


def last(h: Tensor, real: Tensor) -> Tensor:
    return h[torch.arange(len(h)), (torch.arange(h.shape[1]) * real).argmax(1)]


def end(h: Tensor, _: Tensor) -> Tensor:
    return h[:, -1]


def every(h: Tensor, _: Tensor) -> Tensor:
    return h


def ones(x: Tensor) -> Tensor:
    """Return that every token is real; x must be [batch, token, feature]."""
    batch, tokens, _ = x.shape
    return torch.ones(batch, tokens, dtype=torch.bool)


class Attention(nn.Module):
    """One head over the real tokens, and a layer for every token. The logits of other tokens are those given."""

    def __init__(self, causal: bool = False, activation: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.causal, self.activation = causal, activation

    def forward(self, h: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.qkv(h).chunk(3, -1)
        logits = q @ k.mT / WIDTH**0.5 + bias
        if self.causal:
            logits = logits + torch.full_like(logits[0], torch.finfo(h.dtype).min / 2).triu(1)
        out: Tensor = h + self.activation(self.out(logits.softmax(-1) @ v))
        return out


def as_bias(real: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to the logits, [batch, 1, token]."""
    return torch.zeros(real.shape, dtype=dtype).masked_fill(~real, torch.finfo(dtype).min / 2)[:, None]


class Encoder(nn.Module):
    """Blocks of attention that look at real tokens alone, or layers for every token alone, and a readout."""

    def __init__(
        self,
        read: Callable[[Tensor, Tensor], Tensor] = mean,
        reads: Callable[[Tensor], Tensor] = torch.Tensor.bool,
        *,
        attention: bool = True,
        causal: bool = False,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        super().__init__()
        self.into = nn.Linear(4, WIDTH)
        self.blocks = nn.ModuleList(Attention(causal, activation) for _ in range(2 if attention else 0))
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.head = nn.Linear(WIDTH, CLASSES)
        self.read, self.reads = read, reads

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        real = ones(x) if mask is None else self.reads(mask)
        h = self.into(x)
        for block in self.blocks:
            h = block(h, as_bias(real, h.dtype))
        out: Tensor = self.head(self.read(h if self.read is every else self.body(h), real))
        return out


def logits_of(given: Tensor) -> Tensor:
    return given.flatten(1) > -1


class Raw(Encoder):
    """A mask to be added to the logits, as it is; the readout is of the first token."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.into(x)
        for block in self.blocks:
            h = block(h, 0.0 if mask is None else mask.flatten(1)[:, None])
        out: Tensor = self.head(self.body(h)[:, 0])
        return out


class FromDict(Encoder):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["x"], batch.get("mask"))


class Words(Encoder):
    """The model works out by itself which tokens fill up: those with one id."""

    def __init__(self, filler: int = 0, told: bool = False) -> None:
        super().__init__()
        self.filler, self.embed = filler, nn.Embedding(WORDS, 4, padding_idx=filler if told else None)

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(self.embed(tokens), tokens != self.filler)


class LastWord(Encoder):
    """The readout is of the last token that does not fill up, and the mask is of the attention alone."""

    def __init__(self) -> None:
        super().__init__(last, causal=True)
        self.embed = nn.Embedding(WORDS, 4)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        h = self.into(self.embed(tokens))
        for block in self.blocks:
            h = block(h, as_bias(mask.bool(), h.dtype))
        out: Tensor = self.head(self.read(self.body(h), tokens != 1))
        return out


class Recurrent(Encoder):
    def __init__(self, both: bool, read: Callable[[Tensor, Tensor], Tensor] = mean) -> None:
        super().__init__(read, attention=False)
        self.rnn = nn.LSTM(WIDTH, WIDTH // (1 + both), batch_first=True, bidirectional=both)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        real = ones(x) if mask is None else mask
        out: Tensor = self.head(self.read(self.rnn(self.into(x))[0], real))
        return out


class Convolved(Encoder):
    """Convolutions over the tokens, which look at padding, and a mean over the real ones."""

    def __init__(self) -> None:
        super().__init__(attention=False)
        self.below, self.above = Over(), Over()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        real = ones(x) if mask is None else mask
        out: Tensor = self.head(mean(self.above(self.below(self.into(x))), real))
        return out


class Over(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(self.kernel(h.mT).mT)


class Twofold(Encoder):
    """Two masks: a token counts if both say so."""

    def forward(self, x: Tensor, mask: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, mask & other)


class Torch(nn.Module):
    """Torch's own layers, whose mask is true for padding."""

    def __init__(self, read: Callable[[Tensor, Tensor], Tensor] = first) -> None:
        super().__init__()
        self.into, self.head, self.read = nn.Linear(4, WIDTH), nn.Linear(WIDTH, CLASSES), read
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, *, padding: Tensor | None = None) -> Tensor:
        h = self.encoder(self.into(x), src_key_padding_mask=padding)
        out: Tensor = self.head(self.read(h, ~padding if padding is not None else h[..., 0] == h[..., 0]))
        return out


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


class Kinds(Encoder):
    """Flags of tokens that say what kind they are, and never that a token does not count."""

    def __init__(self, read: Callable[[Tensor, Tensor], Tensor], use: str = "added", **more: Any) -> None:
        super().__init__(read, **more)
        self.kind, self.use, self.blank = nn.Embedding(2, 4), use, nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor, kinds: Tensor) -> Tensor:  # type: ignore[override]
        whole = kinds.long()
        h = self.into(x + self.kind(whole) if self.use == "added" else x)
        if self.use == "replaced":  # as in masked language models
            h = torch.where(whole[..., None] > 0, self.blank.to(h.dtype), h)
        elif self.use == "scaled":
            h = h * (1 + whole[..., None])
        elif self.use == "turned":
            h = torch.where(whole[..., None] > 0, -h, h)
        elif self.use == "squashed":
            h = torch.tanh(h + 50 * whole[..., None])
        for block in self.blocks:
            h = block(h, as_bias(whole >= 0, h.dtype))
        out: Tensor = self.head(self.read(h if self.read is every else self.body(h), whole >= 0))
        return out
