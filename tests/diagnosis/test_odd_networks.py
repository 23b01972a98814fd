"""`fa.diagnose` on networks that are no chain of linear layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.cases.diagnosed import data, model, squared
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa


class Reader(nn.Module):
    """Convolutions have no matrix along the feedback; indices are no vectors."""

    def __init__(self, embedded: bool) -> None:
        super().__init__()
        self.first: nn.Module = nn.Embedding(20, 16) if embedded else nn.Conv2d(1, 2, 3)
        self.act, self.readout = nn.Tanh(), nn.Linear(4 * 16 if embedded else 2 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.readout(self.act(self.first(x)).flatten(1))
        return output


@pytest.mark.parametrize("embedded", [False, True])
def test_layers_without_a_matrix_and_inputs_that_are_no_vectors(embedded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(20, (32, 4), generator=generator) if embedded else torch.randn(32, 1, 6, 6)
    y = torch.randint(3, (32,), generator=generator)
    found = fa.diagnose(Reader(embedded), functional.cross_entropy, [(x, y)], points=["act"], steps=3)
    assert found.isotropic == embedded
    assert ("inputs taken for isotropic" in found.table()) == embedded
    assert found.layers == ("act", "readout")
    assert np.isnan(found.trained["dfa"].residual[0])
    assert "Layer act has dashes, because" in found.table()


def test_layers_that_cannot_align_are_named_with_what_would_help() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 3, 16, 16, generator=generator), torch.randint(3, (64,), generator=generator)
    net = fa.networks.ConvNet((3, 16, 16), (4, 6, 8), 3)
    wrapped = fa.DFA(copy.deepcopy(net))
    wrapped(x)
    bounds = fa.alignability(wrapped).layers
    found = fa.diagnose(net, functional.cross_entropy, [(x[:32], y[:32]), (x[32:], y[32:])], steps=3)
    np.testing.assert_array_equal(found.alignability, [np.nan, bounds["1.0"].bound, bounds["2.0"].bound, 1.0])
    assert f"Its weight alignment can be at most {bounds['1.0'].bound:.2f}, with channelwise feedback" in found.table()
    assert "feedalign.feedback.Smooth" in found.table()
    dense = fa.diagnose(model(), squared, data(), steps=1, lr=1e-3)
    assert "can be at most" not in dense.table()


class Pooled(nn.Module):
    """One output for a sequence of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.readout = nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.readout(self.act(self.first(x.mean(1))))
        return output


def test_sequences_of_several_lengths_are_taken_for_isotropic() -> None:
    """An error for each entry, and no vectors of one length: the probe is what can be joined of the first batches."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(4, length, 3, generator=generator), torch.randint(2, (4, length), generator=generator))
        for length in (5, 5, 7, 5)
    ]

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), y.flatten())

    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    found = fa.diagnose(net, loss, batches, steps=6)
    assert found.samples == found.probe == 40  # entries of the batches of one shape
    assert not np.isnan(found.trained["dfa"].by_output).any()
    pooled = [(x, y[:, 0]) for x, y in batches]
    assert fa.diagnose(Pooled(), functional.cross_entropy, pooled, points="act", steps=2).isotropic


class Loop(nn.Module):
    """A cell that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.act, self.readout = nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for _ in range(3):
            h = self.act(self.cell(h) + x)
        output: Tensor = self.readout(h)
        return output


def test_a_point_that_runs_several_times_is_one_layer() -> None:
    found = fa.diagnose(Loop(), squared, data(), points="act", steps=3, lr=1e-3)
    assert found.layers == ("act", "readout")
    assert np.isfinite(found.trained["dfa"].gradient_alignment).all()
