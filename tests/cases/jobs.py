"""Jobs that the tests of runs give to workers: small, and able to go wrong on purpose."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import xarray as xr
from torch.nn import functional

from feedalign.errors import DivergenceError, OutputError
from feedalign.feedback import Uniform
from feedalign.lab.runs import Desk, Job
from feedalign.lab.training import Measurements, train
from feedalign.networks import EnsembleMLP
from feedalign.rules import DirectKolenPollack


@dataclass(frozen=True)
class Square(Job):
    """The square of a number."""

    kind: ClassVar[str] = "square"
    number: int
    seconds: float = 0.0

    def compute(self, desk: Desk) -> xr.Dataset:
        desk.log(f"squares {self.number}")
        for tenth in range(10):
            desk.progress(tenth, 10)
            time.sleep(self.seconds / 10)
        return xr.Dataset({"square": self.number**2})


@dataclass(frozen=True)
class Training(Job):
    """An ensemble under a rule that learns its feedback, with momentum, measurements, and checkpoints at every step.

    `every` is the number of seconds between two checkpoints, where they are to be rarer.
    """

    kind: ClassVar[str] = "training"
    seed: int
    epochs: int = 6
    pause: float = 0.0
    lr: float = 0.01
    every: float = 0.0

    def compute(self, desk: Desk) -> xr.Dataset:
        torch.set_num_threads(1)
        data = torch.Generator().manual_seed(self.seed)
        x, y = torch.randn(40, 5, generator=data), torch.randint(3, (40,), generator=data)
        net = DirectKolenPollack(EnsembleMLP(2, [5, 8, 3], seeds=[self.seed, self.seed + 1]), feedback=Uniform())
        gathered = Measurements("step")

        def measure(step: int) -> None:
            desk.checkpoints.every = self.every  # again and again: where saving is slow, it becomes rarer by itself
            desk.progress(step, 10 * self.epochs)
            time.sleep(self.pause)
            if step % 3 == 0:
                with torch.no_grad():
                    gathered.add(xr.Dataset({"output": (("network", "class"), net(x).mean(1).numpy())}))

        train(
            net,
            x,
            y,
            loss_fn=lambda output, labels: functional.cross_entropy(output.mT, labels, reduction="sum"),
            optimizer=torch.optim.SGD(net.parameters(), lr=self.lr, momentum=0.9, weight_decay=0.1),
            epochs=self.epochs,
            batch_size=4,
            order=[torch.Generator().manual_seed(100 + self.seed + i) for i in range(2)],
            before_step=measure,
            checkpoints=desk.checkpoints,
            measurements=gathered,
        )
        weights = {f"weight of {name}": (("network", f"{name} 1", f"{name} 2"), weight.detach().numpy())
                   for name, weight in net.model.named_parameters() if name.endswith("weight")}  # fmt: skip
        feedback = {
            f"feedback of {name}": ((f"{name} f", "class"), F.numpy()) for name, F in net.feedback_matrices.items()
        }
        return xr.merge([gathered.dataset(), xr.Dataset(weights | feedback)])


@dataclass(frozen=True)
class Deadly(Job):
    """Kills its process the first `deaths` times it is computed."""

    kind: ClassVar[str] = "deadly"
    deaths: int
    memory: str

    def compute(self, desk: Desk) -> xr.Dataset:
        died = len(list(Path(self.memory).glob("death-*")))
        if died < self.deaths:
            (Path(self.memory) / f"death-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return xr.Dataset({"deaths": died})


@dataclass(frozen=True)
class Wrong(Job):
    """Raises an error of the house, or one that is a fault of the program."""

    kind: ClassVar[str] = "wrong"
    fault: bool

    def compute(self, desk: Desk) -> xr.Dataset:
        raise ZeroDivisionError("a fault") if self.fault else OutputError("the network has diverged")


@dataclass(frozen=True)
class Diverged(Job):
    """Raises an error that carries a time and a state."""

    kind: ClassVar[str] = "diverged"
    time: float

    def compute(self, desk: Desk) -> xr.Dataset:
        raise DivergenceError("the trajectory has diverged", time=self.time, state=[self.time])
