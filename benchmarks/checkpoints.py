"""What share of a run do its checkpoints take?

Training with a checkpoint after every step, beside training without, in turns; the difference is what one checkpoint
costs. At the default interval of a minute, the share is that cost over 60 seconds. Where one checkpoint takes longer
than a hundredth of the interval, the intervals become longer, so the share stays near one hundredth. Asked: 0.02.

Run: python benchmarks/checkpoints.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from _timing import interleaved, save
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.lab.runs import Checkpoints
from feedalign.lab.training import Measurements, one_thread, train

ASKED = 0.02
STEPS, BATCH = 10, 32
MEASURED = 25  # data sets that were measured already, as in an experiment


def ensemble() -> nn.Module:
    return fa.DFA(fa.networks.EnsembleMLP(10, [196, 64, 64, 10], "tanh", bias=False))


def wide() -> nn.Module:
    return fa.DFA(fa.networks.MLP([784, 2048, 2048, 10]))


def training(make: Callable[[], nn.Module], inputs: int, networks: int, every_step: bool) -> None:
    data = torch.Generator().manual_seed(0)
    x, y = torch.randn(STEPS * BATCH, inputs, generator=data), torch.randint(10, (STEPS * BATCH,), generator=data)
    net, gathered = make(), Measurements("step")
    for step in range(MEASURED):
        gathered.add(xr.Dataset({"alignment": (("network", "layer"), torch.full((10, 3), float(step)).numpy())}))
    orders = [torch.Generator().manual_seed(seed) for seed in range(networks)]
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))

        def before(_step: int) -> None:
            checkpoints.every = 0.0 if every_step else float("inf")

        train(
            net,
            x,
            y,
            loss_fn=lambda output, labels: functional.cross_entropy(output.flatten(0, -2), labels.flatten()),
            optimizer=torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9),
            epochs=1,
            batch_size=BATCH,
            order=orders if networks > 1 else orders[0],
            before_step=before,
            checkpoints=checkpoints,
            measurements=gathered,
        )


def row(what: str, make: Callable[[], nn.Module], inputs: int, networks: int) -> dict[str, Any]:
    without, with_each = interleaved(
        partial(training, make, inputs, networks, False),
        partial(training, make, inputs, networks, True),
        rounds=7,
        warm_up=1,
    )
    seconds = (with_each - without) / STEPS
    interval = Checkpoints(Path("unused")).every
    return {
        "what": f"checkpoint of {what}",
        "share_of_run": round(seconds / max(interval, 100 * seconds), 5),
        "asked": ASKED,
        "checkpoint_ms": round(1e3 * seconds, 1),
        "interval_s": round(max(interval, 100 * seconds), 1),
    }


@one_thread()
def main() -> None:
    save(
        "checkpoints",
        [
            row("ten networks 196-64-64-10, SGD with momentum", ensemble, 196, 10),
            row("a network 784-2048-2048-10, SGD with momentum", wide, 784, 1),
        ],
    )


if __name__ == "__main__":
    main()
