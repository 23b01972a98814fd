"""The first axis of every point is that of the samples. Where the shapes of one batch do not show it, another does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.models import floats, labels
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import FeedbackShapeError


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.gate, self.readout = nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)


class TimeFirst(Layers):
    """Takes [batch, time, 5] and works on [time, batch, 6]."""

    def forward(self, x: Tensor) -> Any:
        return self.readout(self.gate(self.hidden(x.transpose(0, 1))).mean(0))


class GivenTimeFirst(Layers):
    """Takes [time, batch, 5]."""

    def forward(self, x: Tensor) -> Any:
        return self.readout(self.gate(self.hidden(x)).mean(0))


class Graphs(Layers):
    """Takes nodes [node, 5] and the graph of each node, and gives one output for each graph."""

    def forward(self, nodes: Tensor, graph: Tensor) -> Any:
        h = self.gate(self.hidden(nodes))
        return self.readout(h.new_zeros(4, 6).index_add(0, graph, h))


class BatchFirst(Layers):
    def forward(self, x: Tensor) -> Any:
        return self.readout(self.gate(self.hidden(x)).mean(1))


class FixedBatch(BatchFirst):
    """Takes batches of four samples only."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.reshape(4, -1, 5))


class Contrast(BatchFirst):
    """Gives as many numbers for each sample as there are samples."""

    def forward(self, x: Tensor) -> Any:
        z = super().forward(x)
        return z @ z.T


SQUARE = floats(4, 4, 5)  # as long as the batch is large
BY_CHANCE: dict[str, tuple[type[Layers], tuple[Tensor, ...]]] = {
    "time first": (TimeFirst, (SQUARE,)),
    "given time first": (GivenTimeFirst, (SQUARE,)),
    "as many graphs as nodes": (Graphs, (floats(4, 5), torch.tensor([2, 0, 3, 1]))),
}
RIGHT: dict[str, tuple[type[Layers], tuple[Tensor, ...]]] = {
    "batch first": (BatchFirst, (SQUARE,)),
    "batch first, longer": (BatchFirst, (floats(4, 7, 5),)),
    "one sample": (BatchFirst, (floats(1, 4, 5),)),
    "a batch of four only": (FixedBatch, (floats(16, 5),)),
    "outputs that count samples": (Contrast, (SQUARE,)),
}


@pytest.mark.parametrize("name", BY_CHANCE)
def test_shapes_that_agree_by_chance_are_refused(name: str) -> None:
    kind, inputs = BY_CHANCE[name]
    with pytest.raises(FeedbackShapeError, match=r"with 3 samples in place of 4, point 'gate' has shape"):
        fa.DFA(kind(), ("gate",))(*inputs)
    (problem,) = fa.validate(kind(), ("gate",), *inputs).problems
    assert problem.name == "gate"
    assert "with 3 samples in place of 4" in problem.problem


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_taken(name: str) -> None:
    kind, inputs = RIGHT[name]
    assert fa.validate(kind(), ("gate",), *inputs)
    net = fa.DFA(kind(), ("gate",))
    output = net(*inputs)
    functional.cross_entropy(output, labels(len(output)) % output.shape[1]).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_look_at_one_sample_fewer_leaves_no_trace() -> None:
    class Drawing(BatchFirst):
        passes: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("passes", torch.tensor(0))
            self.calls = 0

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            self.passes += 1
            return super().forward(x + 0 * torch.randn(()))

    model = Drawing()
    net = fa.DFA(model, ("gate",))
    before = model.calls, int(model.passes)
    torch.manual_seed(1)
    net(SQUARE)
    after = torch.rand(())
    assert (model.calls, int(model.passes)) == tuple(2 + each for each in before)  # to see the shapes, and to learn
    torch.manual_seed(1)
    torch.randn(())
    torch.randn(())
    assert after == torch.rand(())
