"""One run as a job: try it out, train, measure along the way, and keep the trained network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import cross_entropy

from feedalign.errors import DivergenceError
from feedalign.lab.files import check_folder
from feedalign.lab.options import TrainConfig
from feedalign.lab.own_training.checking import check_values, refuse_unused, resolved
from feedalign.lab.own_training.learner import learner_of, optimizer_of, prepared, try_out
from feedalign.lab.own_training.measuring import measure
from feedalign.lab.own_training.samples import Samples, digest_of_file, samples_of
from feedalign.lab.own_training.showing import csv_of, plot
from feedalign.lab.own_training.toml import written
from feedalign.lab.progress import Watch, unwatched
from feedalign.lab.runs import Desk, Job, StoredRun, ThisProcess, run_jobs
from feedalign.lab.training import Measurements, log_steps, one_thread, steps_per_epoch, train
from feedalign.rules import Wrapped
from feedalign.streams import torch_generator
from feedalign.style import svg

# What does not decide whether network, rule and data fit together: runs that differ in this alone are tried out once.
NO_MATTER = (
    "label_noise", "feedback_lr", "feedback_decay", "optimizer", "lr", "momentum", "weight_decay", "schedule", "epochs",
    "seed_feedback", "seed_data", "measurements", "probe",
)  # fmt: skip


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
            dataset = _Course(config, samples, learner, desk).run()
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
        loss = cross_entropy(output, labels)
        if not torch.isfinite(loss):
            raise self._diverged()
        return loss

    def _diverged(self) -> DivergenceError:
        return DivergenceError(f"the loss is not finite after {self.step} steps", time=self.step, state=None)


def run_of(config: TrainConfig, tried: dict[tuple[TrainConfig, str], str] | None = None) -> Run:
    """Return the job of a config, after the config was tried out on one batch.

    Args:
        config: what to train, and how.
        tried: what the same command has tried out before; it gets what is tried out now.

    Raises:
        ArgumentError: a value is wrong, or things do not fit together; says what to do.
        DataError: the data set was not fetched, or is damaged.
    """
    config = resolved(check_values(config))
    refuse_unused(config)
    data = digest_of_file(config.dataset)
    tried = {} if tried is None else tried
    alike = replace(config, **{name: getattr(resolved(TrainConfig()), name) for name in NO_MATTER})
    alike = alike if ":" in config.network else replace(alike, seed_weights=0)
    if (alike, data) not in tried:
        tried[alike, data] = try_out(config, data)
    return Run(config, data, tried[alike, data])


def compute(config: TrainConfig, runs: Path = Path("runs"), progress: Watch = unwatched) -> StoredRun:
    """Train, unless `runs` holds the finished run already; an interrupted run goes on from its last checkpoint.

    Args:
        config: what to train, and how.
        runs: folder of the runs; made if missing. The run lies in `runs/train/<hash of the resolved config>`.
        progress: called with "train"; returns a context manager that gives a function of (done, total) to be called.

    Returns:
        The run. Beside result.nc its folder holds config.toml, metrics.csv, figure.svg and, unless the run diverged,
        network.safetensors: the state of the network in its rule, the feedback with it.

    Raises:
        ArgumentError: a value is wrong, or things do not fit together. Raised before any work.
        DataError: the data set was not fetched or is damaged, or the run cannot be stored or read.
    """
    check_folder("runs", runs)
    job = run_of(config)
    with progress("train") as tell:
        (run,) = run_jobs([job], runs, ThisProcess(), tell)
    return run
