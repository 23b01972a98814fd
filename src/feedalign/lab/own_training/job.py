"""One run as a job: train, measure along the way, and keep the trained network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from safetensors.torch import save
from torch import Tensor

from feedalign.errors import DivergenceError
from feedalign.lab.options import TrainConfig
from feedalign.lab.own_training.drawing import plot
from feedalign.lab.own_training.learner import learner_of, loss_fn, optimizer_of, prepared
from feedalign.lab.own_training.measuring import csv_of, measure
from feedalign.lab.own_training.samples import Samples, samples_of
from feedalign.lab.own_training.toml import written
from feedalign.lab.runs import Desk, Job
from feedalign.lab.training import Measurements, log_steps, one_thread, steps_per_epoch, train
from feedalign.rules import Wrapped
from feedalign.streams import torch_generator
from feedalign.style import svg


@dataclass(frozen=True)
class Run(Job):
    """One training, of the user's choice. The result has a row for each measured step.

    Attributes:
        config: resolved, with checked values.
        data: digest of the user's .npz file; empty for a data set that has a name.
        code: digest of the user's code and its initial network; empty for a network that has a name.
    """

    kind = "train"
    config: TrainConfig
    data: str
    code: str

    @one_thread()
    def compute(self, desk: Desk) -> xr.Dataset:
        """Train; beside the result lie config.toml, metrics.csv, figure.svg and, unless it diverged, the network."""
        config = self.config
        with prepared(config):
            samples = samples_of(config, self.data)
            learner, _ = learner_of(config, samples)
            course = _Course(config, samples, learner, desk)
            dataset = course.run()
        desk.keep("config.toml", written(config).encode())
        desk.keep("metrics.csv", csv_of(dataset).encode())
        desk.keep("figure.svg", svg(plot(dataset)))
        if dataset.diverged_at.isnull():
            state = {name: tensor.contiguous() for name, tensor in learner.state_dict().items()}
            desk.keep("network.safetensors", save(state))
        return dataset


class _Course:
    """A training under way: its rate follows the schedule, and it ends where the loss is no longer finite."""

    def __init__(self, config: TrainConfig, samples: Samples, learner: Wrapped, desk: Desk) -> None:
        self.config, self.samples, self.learner, self.desk = config, samples, learner, desk
        self.optimizer = optimizer_of(config, learner)
        self.per_epoch = steps_per_epoch(len(samples.train_x), config.batch_size)
        self.last = self.per_epoch * config.epochs
        self.steps = {*log_steps(self.last, config.measurements), self.last}  # of one measurement, too, the last
        self.measurements = Measurements("step")
        self.step = 0

    def run(self) -> xr.Dataset:
        """Train, and return what was measured."""
        diverged_at = math.nan
        assert self.config.seed_data is not None
        try:
            train(
                self.learner,
                self.samples.train_x,
                self.samples.train_y,
                loss_fn=self._loss,
                optimizer=self.optimizer,
                epochs=self.config.epochs,
                batch_size=self.config.batch_size,
                order=torch_generator(self.config.seed_data, "order"),
                before_step=self._before,
                checkpoints=self.desk.checkpoints,
                measurements=self.measurements,
            )
        except DivergenceError as error:
            diverged_at = error.time
            self.desk.log(str(error))
        dataset = self.measurements.dataset()
        epochs = dataset.done.values / self.per_epoch
        return dataset.drop_vars("done").assign(diverged_at=diverged_at).assign_coords(
            step=("step", dataset.done.values), epoch=("step", epochs, {"units": "epochs"})
        )  # fmt: skip

    def _before(self, step: int) -> None:
        """Called with the number of steps done."""
        self.step = step
        if self.config.schedule == "cosine":
            assert self.config.lr is not None
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.lr * (1 + math.cos(math.pi * step / self.last)) / 2
        if step in self.steps:
            measured = measure(self.learner, self.config, self.samples)
            self.measurements.add(measured.assign(done=step))
            if not all(np.isfinite(measured[name]) for name in ("train_loss", "test_loss")):
                raise self._diverged()
        if step % 20 == 0 or step == self.last:
            self.desk.progress(step, self.last)

    def _loss(self, output: Tensor, labels: Tensor) -> Tensor:
        loss = loss_fn(output, labels)
        if not torch.isfinite(loss):
            raise self._diverged()
        return loss

    def _diverged(self) -> DivergenceError:
        return DivergenceError(f"the loss is not finite after {self.step} steps", time=self.step, state=None)
