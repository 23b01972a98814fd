"""A training that is interrupted after any step and goes on ends at the same bits as one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.lab.runs import Checkpoints
from feedalign.lab.training import Measurements, train

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, betas=(0.8, 0.9), amsgrad=True),
}
NETS: dict[str, Any] = {
    "learned feedback": lambda: fa.DirectKolenPollack(fa.networks.MLP([5, 8, 3], seed=1), seed=2),
    "conditioned": lambda: fa.ConditionedDFA(fa.networks.MLP([5, 8, 3], seed=1), seed=2),
    "dropout and batch norm": lambda: fa.DFA(
        nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)), seed=2
    ),
}
SAMPLES, BATCH, EPOCHS = 22, 5, 2


class StoppedError(Exception):
    """Raised in place of a kill."""


def trained(kind: str, optimizer: str, folder: Path, stop: int) -> tuple[dict[str, Tensor], xr.Dataset]:
    torch.manual_seed(0)
    net = NETS[kind]()
    data = torch.Generator().manual_seed(3)
    x, y = torch.randn(SAMPLES, 5, generator=data), torch.randint(3, (SAMPLES,), generator=data)
    gathered, checkpoints = Measurements("step"), Checkpoints(folder, every=0.0)

    def before(step: int) -> None:
        if step == stop:
            raise StoppedError(f"before step {step}")
        gathered.add(xr.Dataset({"weight": float(next(net.parameters()).detach().sum())}))

    order = torch.Generator().manual_seed(4)
    train(
        net, x, y, loss_fn=functional.cross_entropy, optimizer=OPTIMIZERS[optimizer](net), epochs=EPOCHS,
        batch_size=BATCH, order=order, before_step=before, checkpoints=checkpoints, measurements=gathered,
    )  # fmt: skip
    return net.state_dict(), gathered.dataset()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", NETS)
def test_interrupted_after_every_step_it_ends_at_the_same_bits(kind: str, optimizer: str, tmp_path: Path) -> None:
    expected, measured = trained(kind, optimizer, tmp_path / "unbroken", stop=-1)
    for stop in range(EPOCHS * (SAMPLES // BATCH + 1) + 1):
        with pytest.raises(StoppedError, match=f"before step {stop}$"):
            trained(kind, optimizer, tmp_path / "broken", stop)
    state, dataset = trained(kind, optimizer, tmp_path / "broken", stop=-1)
    xr.testing.assert_identical(dataset, measured)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
