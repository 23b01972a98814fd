"""Models that compute their loss themselves, as those of large libraries do when they are given labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tests.cases.models import DecoderBlock, floats, labels
from torch import Tensor, nn
from torch.nn import functional


class Returned(NamedTuple):
    loss: Tensor | None
    logits: Any


@dataclass
class Answer:
    loss: Tensor | None
    start: Tensor
    end: Tensor


class Causal(nn.Module):
    """A causal language model that shifts its labels itself; its head is tied to the embedding or not."""

    def __init__(self, tied: bool = False, post_norm: bool = False) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.blocks = nn.ModuleList(DecoderBlock(8) for _ in range(2))
        self.norm = nn.Identity() if post_norm else nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Any:
        h = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            h = block(h)
        logits = self.head(self.norm(h))
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


class Classifier(nn.Module):
    """An encoder whose tokens are pooled, as far as a mask calls them real."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.classifier = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
        h = self.embed(tokens)
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=mask == 0)
        pooled = (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        logits = self.classifier(pooled)
        return Returned(None if labels is None else functional.cross_entropy(logits, labels), logits)


class Translator(nn.Module):
    """A recurrent encoder and a decoder that begins with the encoder's last activation."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(11, 8), nn.Embedding(11, 8)
        self.encoder, self.encoded = nn.GRU(8, 8, batch_first=True), nn.Identity()
        self.decoder = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Tensor, targets: Tensor, labels: Tensor | None = None) -> Any:
        sequence, _ = self.encoder(self.source(tokens))
        context = self.encoded(sequence[:, -1:].expand(-1, targets.shape[1], -1))
        h, _ = self.decoder(torch.cat([self.target(targets), context], -1))
        logits = self.head(h)
        loss = None if labels is None else functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return loss, logits


class Span(nn.Module):
    """Start and end of an answer: two Tensors of one head, or of two."""

    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.start, self.end = nn.Linear(8, 1), nn.Linear(8, 1)
        self.both = nn.Linear(8, 2)
        self.heads = heads
        self.ends = nn.ModuleDict({"start": nn.Identity(), "end": nn.Identity()})

    def forward(self, x: Tensor, labels: tuple[Tensor, Tensor] | None = None) -> Any:
        h = self.body(x)
        start, end = (self.start(h), self.end(h)) if self.heads == 2 else self.both(h).split(1, -1)
        start, end = self.ends["start"](start.squeeze(-1)), self.ends["end"](end.squeeze(-1))
        loss = None
        if labels is not None:
            losses = [functional.cross_entropy(one, y) for one, y in zip((start, end), labels, strict=True)]
            loss = losses[0] + 2 * losses[1]
        return Answer(loss, start, end)


class Image(nn.Module):
    """A convolutional network that computes its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.classifier = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.classifier(self.stem(x).flatten(1))
        return {"logits": logits, **({} if labels is None else {"loss": functional.cross_entropy(logits, labels)})}


class Regression(nn.Module):
    """One number a sample, and a squared error."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.gate, self.value = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
        y = self.value(self.gate(self.hidden(x)))
        return (None if target is None else (y.squeeze(-1) - target).square().mean()), y


@dataclass
class InsideCase:
    """A model that computes its loss, its points, the place of the error, and its inputs."""

    make: Callable[[], nn.Module]
    points: tuple[str, ...]
    error_at: str | tuple[str, ...]
    inputs: dict[str, Any]
    loss: Callable[[Any], Tensor]
    output: Any = None  # the same place as an entry of what the model returns
    outside: Callable[[Any, dict[str, Any]], Tensor] | None = None  # the loss, from what the model returns
    options: dict[str, Any] | None = None

    def model(self) -> nn.Module:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return self.make().double()

    def wrapped(self, rule: Any, **more: Any) -> Any:
        options = {"points": self.points, "error_at": self.error_at, **(self.options or {}), **more}
        return rule(self.model(), **options)


def causal_loss(output: Any, inputs: dict[str, Any]) -> Tensor:
    return functional.cross_entropy(output["logits"][:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())


def translator_loss(output: Any, inputs: dict[str, Any]) -> Tensor:
    return functional.cross_entropy(output[1].flatten(0, 1), inputs["labels"].flatten())


def span_loss(output: Any, inputs: dict[str, Any]) -> Tensor:
    first, second = inputs["labels"]
    return functional.cross_entropy(output.start, first) + 2 * functional.cross_entropy(output.end, second)


def pooled_loss(output: Any, inputs: dict[str, Any]) -> Tensor:
    return functional.cross_entropy(output.logits, inputs["labels"])


TOKENS = labels(3, 6, classes=11)
BLOCKS = ("blocks.0", "blocks.1")
LAYERS = ("layers.0", "layers.1")
LENGTHS = (torch.arange(6) < torch.tensor([[6], [4], [2]])).long()
TEXT = {"tokens": TOKENS, "labels": TOKENS}
SPAN = {"x": floats(6, 5, 4).double(), "labels": (torch.arange(6) % 5, torch.arange(6) % 3)}


def loss_entry(output: Any) -> Tensor:
    loss: Tensor = output["loss"] if isinstance(output, dict) else output[0]
    return loss


def loss_field(output: Any) -> Tensor:
    loss: Tensor = output.loss
    return loss


INSIDE: dict[str, InsideCase] = {
    "causal": InsideCase(Causal, BLOCKS, "head", TEXT, loss_entry, "logits", causal_loss),
    "causal, tied": InsideCase(lambda: Causal(True), BLOCKS, "head", TEXT, loss_entry, "logits", causal_loss),
    "causal, post-norm, tied": InsideCase(
        lambda: Causal(True, True), BLOCKS, "head", TEXT, loss_entry, "logits", causal_loss
    ),
    "causal, before the vocabulary": InsideCase(lambda: Causal(True), BLOCKS, "head.input", TEXT, loss_entry),
    "pooled": InsideCase(
        Classifier, LAYERS, "classifier", {"tokens": TOKENS, "labels": labels(3)}, loss_field, "logits", pooled_loss
    ),
    "pooled, masked": InsideCase(
        Classifier, LAYERS, "classifier", {"tokens": TOKENS, "attention_mask": LENGTHS, "labels": labels(3)},
        loss_field, "logits", pooled_loss, {"mask": "attention_mask"},
    ),
    "translator": InsideCase(
        Translator, ("encoded",), "head",
        {"tokens": TOKENS, "targets": labels(3, 4, classes=11), "labels": labels(3, 4, classes=11)},
        loss_entry, 1, translator_loss,
    ),
    "span": InsideCase(Span, ("body",), ("ends.start", "ends.end"), SPAN, loss_field, ("start", "end"), span_loss),
    "span, one head": InsideCase(
        Span, ("body",), "both", {**SPAN}, loss_field, None, None
    ),
    "span, two heads": InsideCase(
        lambda: Span(2), ("body",), ("ends.end", "ends.start"), SPAN, loss_field, ("end", "start"), span_loss
    ),
    "image": InsideCase(
        Image, ("stem",), "classifier", {"x": floats(5, 1, 6, 6).double(), "labels": labels(5)},
        loss_entry, "logits", lambda out, inputs: functional.cross_entropy(out["logits"], inputs["labels"]),
    ),
    "regression": InsideCase(
        Regression, ("gate",), "value", {"x": floats(5, 4).double(), "target": floats(5).double()},
        loss_entry, 1, lambda out, inputs: (out[1].squeeze(-1) - inputs["target"]).square().mean(),
    ),
}  # fmt: skip
