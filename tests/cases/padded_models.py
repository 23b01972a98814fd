"""Small models of sequences, which leave padding out in many ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, CLASSES, WORDS = 8, 3, 11


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

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
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
