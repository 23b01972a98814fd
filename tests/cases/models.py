"""The models that people train, each with its points, a batch and a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.cases.outputs import MAKERS, Structured
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa


class Residual(nn.Module):
    """A convolutional network of two residual blocks with batch norm, a point after each sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
            for _ in range(2)
        )
        self.sums = nn.ModuleList(nn.ReLU() for _ in range(2))
        self.readout = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for branch, after in zip(self.branches, self.sums, strict=True):
            h = after(h + branch(h))
        out: Tensor = self.readout(h.flatten(1))
        return out


class Encoder(nn.Module):
    """A Transformer encoder that labels every token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.readout(self.encoder(self.embed(tokens)))
        return out


class DecoderBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](h)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.merge(mixed.transpose(1, 2).flatten(2))
        out: Tensor = h + self.mlp(self.norms[1](h))
        return out


class Decoder(nn.Module):
    """A causal language model."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.blocks = nn.ModuleList(DecoderBlock(8) for _ in range(2))
        self.readout = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.readout(h)
        return out


class Recurrent(nn.Module):
    """GRU, LSTM or RNN over a whole sequence, read out at its end or at every step."""

    def __init__(self, kind: Any, every_step: bool = False) -> None:
        super().__init__()
        self.memory = kind(5, 6, batch_first=True)
        self.readout = nn.Linear(6, 3)
        self.every_step = every_step

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.memory(x)
        out: Tensor = self.readout(sequence if self.every_step else sequence[:, -1])
        return out


class CellLoop(nn.Module):
    """A cell that runs once a step: a point that runs several times."""

    def __init__(self, cell: Any = nn.RNNCell) -> None:
        super().__init__()
        self.cell = cell(5, 6)
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        out: Tensor = self.readout(state[0] if isinstance(state, tuple) else state)
        return out


class Stepwise(CellLoop):
    """The same with an output at every step."""

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(self.readout(state))
        return torch.stack(outputs, 1)


class TwoInputs(nn.Module):
    """A function of two inputs and a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.gate, self.readout = nn.Tanh(), nn.Linear(6, 3)

    def forward(self, a: Tensor, b: Tensor, *, scale: float = 1.0) -> Tensor:
        out: Tensor = self.readout(self.gate(scale * self.left(a) + self.right(b)))
        return out


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, -2), y.flatten())


def floats(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int = 3) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


@dataclass
class Case:
    """A model, its points, and a batch."""

    make: Callable[[], nn.Module]
    points: Any
    x: Any
    y: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[Any, Any], Tensor] = cross_entropy

    def model(self) -> nn.Module:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return self.make()

    def wrapped(self, rule: Any = fa.DFA, model: nn.Module | None = None) -> Any:
        return rule(model or self.model(), points=self.points, **self.options)

    @property
    def inputs(self) -> tuple[Any, ...]:
        return self.x if isinstance(self.x, tuple) else (self.x,)


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2),
        nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def structured(name: str) -> Case:
    make, entry = MAKERS[name]

    def tap(output: Any) -> Tensor:
        found: Tensor = (
            entry(output) if callable(entry)
            else getattr(output, entry) if isinstance(entry, str) and not isinstance(output, dict)
            else output[entry]
        )  # fmt: skip
        return found

    return Case(
        lambda: Structured(make), ("gate",), floats(5, 4), labels(5), {"output": entry},
        lambda output, y: cross_entropy(tap(output), y),
    )  # fmt: skip


TOKENS = labels(3, 6, classes=11)


BATCH_DIMS = {"batch_dims": 2}


CASES: dict[str, Case] = {
    "mlp": Case(lambda: fa.networks.MLP([4, 7, 6, 3]), "auto", floats(5, 4), labels(5)),
    "convnet": Case(convnet, ("3", "7"), floats(5, 1, 8, 8), labels(5)),
    "residual": Case(Residual, ("stem", "sums.0", "sums.1"), floats(5, 1, 6, 6), labels(5)),
    "encoder": Case(Encoder, ("encoder.layers.0", "encoder.layers.1"), TOKENS, TOKENS.flip(1), BATCH_DIMS),
    "decoder": Case(Decoder, ("blocks.0", "blocks.1"), TOKENS[:, :-1], TOKENS[:, 1:], BATCH_DIMS),
    "gru": Case(lambda: Recurrent(nn.GRU), ("memory",), floats(4, 3, 5), labels(4)),
    "lstm": Case(lambda: Recurrent(nn.LSTM), ("memory",), floats(4, 3, 5), labels(4)),
    "rnn": Case(lambda: Recurrent(nn.RNN), ("memory",), floats(4, 3, 5), labels(4)),
    "gru at every step": Case(
        lambda: Recurrent(nn.GRU, True), ("memory",), floats(4, 3, 5), labels(4, 3), BATCH_DIMS
    ),
    "rnn cell": Case(CellLoop, ("cell",), floats(4, 3, 5), labels(4)),
    "lstm cell": Case(lambda: CellLoop(nn.LSTMCell), ("cell",), floats(4, 3, 5), labels(4)),
    "cell and outputs at every step": Case(
        Stepwise, ("cell",), floats(4, 3, 5), labels(4, 3), {"batch_dims": 1}
    ),
    "two inputs": Case(TwoInputs, ("gate",), (floats(5, 4), floats(5, 3, seed=2)), labels(5)),
    **{name: structured(name) for name in MAKERS},
}  # fmt: skip


DIRECT: dict[str, Any] = {
    "dfa": fa.DFA,
    "sign": lambda *a, **k: fa.DFA(*a, error="sign", **k),
    "drtp": fa.DRTP,
    "conditioned": fa.ConditionedDFA,
    "dkp": fa.DirectKolenPollack,
    "readout": fa.ReadoutOnly,
    "backprop": fa.Backprop,
}
