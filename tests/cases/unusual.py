"""Models that do something unusual: tied weights, complex numbers, packed sequences, a loss of their own."""

from __future__ import annotations

from typing import Any

import torch
from tests.cases.small import network
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body, self.readout, self.reentrant = network(5, 8, 6), nn.Linear(6, 3).double(), reentrant

    def forward(self, x: Tensor) -> Any:
        return self.readout(checkpoint(self.body, x.requires_grad_(), use_reentrant=self.reentrant))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.act = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Tanh()
        self.readout = nn.Linear(4, 7, bias=False)
        self.readout.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Any:
        return self.readout(self.act(self.body(self.embed(tokens))))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.loop, self.last, self.act = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3), nn.Tanh()

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.first(x))
        return self.last(self.act(self.loop(self.act(self.loop(h)))))


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.act = nn.Embedding(7, 4, sparse=True), nn.Linear(4, 4), nn.Tanh()
        self.readout = nn.Linear(4, 7)

    def forward(self, tokens: Tensor) -> Any:
        return self.readout(self.act(self.body(self.embed(tokens))))


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.mid, self.last = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.complex, self.act = nn.Identity(), nn.Tanh()

    def forward(self, x: Tensor) -> Any:
        h = self.complex(torch.fft.fft(torch.tanh(self.first(x))))
        return self.last(self.act(self.mid(h.abs())))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.memory, self.last = nn.Linear(5, 4), nn.Tanh(), nn.GRU(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.first(x))
        packed = pack_padded_sequence(h, torch.full((len(h),), 2), batch_first=True)
        sequence, _ = pad_packed_sequence(self.memory(packed)[0], batch_first=True)
        return self.last(sequence[:, -1])


class LossInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor, y: Tensor) -> Any:
        logits = self.body(x)
        return {"loss": functional.cross_entropy(logits, y), "logits": logits}


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = network(5, 8, 6), nn.Linear(6, 3).double()
        self.body, self.act = nn.Linear(6, 6).double(), nn.Tanh()

    def forward(self, x: Tensor) -> Any:
        h = self.first(x)
        for _ in range(2):
            if not self.training or torch.rand(()) < 0.5:
                h = self.act(self.body(h))
        return self.last(h)
