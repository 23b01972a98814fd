"""One ensemble of fully connected networks, trained under one rule and measured along log-spaced steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from feedalign.checks import one_of
from feedalign.errors import ArgumentError
from feedalign.lab.experiments.common.ensembles import cross_entropies, measured_ensemble, scaled_ensemble
from feedalign.lab.experiments.common.gradient_noise import GradientNoise, NoiseKind
from feedalign.lab.experiments.common.sampling import image_sample
from feedalign.lab.recipes import recipe_of
from feedalign.lab.runs import Desk, Job
from feedalign.lab.training import Measurements, log_steps, one_thread, steps_per_epoch, train
from feedalign.rules import RULES, DirectRule
from feedalign.streams import derived_seed, torch_generator

DENSE = ("gaussian", "orthogonal", "rademacher", "uniform")  # recipes that need nothing of the network
DIRECT_RULES = tuple(name for name, rule in RULES.items() if issubclass(rule, DirectRule))
# An ensemble of small networks leaves most of a GPU idle, so four ensembles share one.
GPU_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class EnsembleSetting:
    """What the trainings of an experiment have in common.

    Attributes:
        dataset: name of a data set, as `feedalign.lab.data.load` knows it.
        image_size: height and width to which images are averaged down; 0 keeps the images as they are.
        classes: the classes that are kept; none stands for all.
        train_images: number of training images, drawn at random for each draw; 0 stands for all.
        feedback: recipe of the feedback matrices: "uniform", "gaussian", "rademacher" or "orthogonal".
        feedback_scale: the recipe's scale; None is the recipe's default, 1/√features.
        optimizer: "sgd" or "adam".
        momentum: of SGD.
        weight_decay: of the optimizer.
        batch_size: samples in a step.
        epochs: passes through the data.
        networks: runs for each draw of the feedback; they differ in initial weights and data order.
        measurements: number of measured times after time 0, evenly spaced in log time.
        first_measured: the first of these times, as a share of the training.
        probe: number of training images on which alignment is measured.
        first_seed: seed from which all seeds are derived.
        device: where the networks are trained: "cpu" or "cuda". A GPU adds numbers in another order than a CPU, so its
            results are other bits, and the device is part of what decides a result.
    """

    dataset: str
    image_size: int = 0
    classes: tuple[int, ...] = ()
    train_images: int = 0
    feedback: str = "uniform"
    feedback_scale: float | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 32
    epochs: int
    networks: int
    measurements: int = 24
    first_measured: float = 1e-3
    probe: int = 500
    first_seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class EnsembleTraining(EnsembleSetting, Job):
    """Networks that share their feedback and their images, trained side by side under one rule.

    A draw has images, label noise, feedback, initial weights and orders of the data of its own. They are the same under
    every rule, and the images and the feedback of a draw are the same under every label noise.

    Attributes:
        hidden: widths of the hidden layers.
        activation: activation of the hidden layers.
        init_scale: the initial weights are PyTorch's (uniform on ±1/√fan_in) times this number.
        lr: learning rate for the loss summed over the batch.
        label_noise: share of the training labels that is drawn at random.
        rule: name of a direct rule, or of one of the controls "backprop", "readout-only" and "frozen".
        noise_kind: noise that is added to the gradients, a control: "none", "random" or "fixed"; see `GradientNoise`.
        noise_norm: length of this noise relative to the gradient.
        draw: number of the draw.
    """

    kind = "ensemble-training"
    hidden: tuple[int, ...]
    activation: Literal["tanh", "relu", "linear"]
    init_scale: float = 1.0
    lr: float
    label_noise: float = 0.0
    rule: str
    noise_kind: NoiseKind = "none"
    noise_norm: float = 0.0
    draw: int

    @property
    def gpus(self) -> float:
        """What part of a GPU the job takes."""
        return 0.0 if self.device == "cpu" else GPU_SHARE

    @one_thread()
    def compute(self, desk: Desk) -> xr.Dataset:
        """Train and measure.

        Returns:
            What `measured_ensemble` gives, along `epoch`, and `finite_steps`: of each network, the number of steps
            whose loss was a finite number. This number is smaller than the number of steps if the network has diverged.
            The measurements of a diverged network are NaN; the other networks train on as if it were not there.

        Raises:
            ArgumentError: a name is unknown, the optimizer does not take the settings, or the data set has no such
                classes or not so many images.
            DataError: the data set is missing, or a checkpoint cannot be written.
        """
        sample = image_sample(
            self.dataset, self.image_size, self.classes, self.train_images, self.label_noise, self.first_seed, self.draw
        ).to(self.device)
        seeds = [derived_seed(self.first_seed, "network", self.draw, i) for i in range(self.networks)]
        sizes = [sample.train_x.shape[1], *self.hidden, sample.classes]
        networks = scaled_ensemble(sizes, self.activation, seeds, self.init_scale)
        net = self._wrapped(networks).to(self.device)
        counted = FiniteLosses(net, self.networks).to(self.device)
        optimizer = self._optimizer(net)
        noise = GradientNoise(self.noise_kind, self.noise_norm, self.first_seed, self.draw)
        optimizer.register_step_pre_hook(lambda *_: noise.add(networks.parameters()))
        steps = self.measured_steps(len(sample.train_x))
        due, measured = set(steps), Measurements("epoch")

        def before(step: int) -> None:
            noise.step = step
            if step in due:
                measured.add(measured_ensemble(net, networks, sample, self.probe, self.batch_size, noise))
            if step % 100 == 0 or step == steps[-1]:
                desk.progress(step, steps[-1])

        train(
            counted,
            sample.train_x,
            sample.train_y,
            loss_fn=counted.loss,
            optimizer=optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            order=[torch_generator(seed, "order") for seed in seeds],
            before_step=before,
            checkpoints=desk.checkpoints,
            measurements=measured,
        )
        epochs = np.array(steps) / steps_per_epoch(len(sample.train_x), self.batch_size)
        dataset = measured.dataset().assign_coords(epoch=("epoch", epochs, {"units": "epochs"}))
        return dataset.assign(finite_steps=("network", counted.finite_steps.cpu().numpy()))

    def measured_steps(self, images: int) -> list[int]:
        """Return the numbers of steps after which the networks are measured: 0, then evenly spaced in log time."""
        last = steps_per_epoch(images, self.batch_size) * self.epochs
        return log_steps(last, self.measurements, self.first_measured)

    def _wrapped(self, networks: nn.Module) -> DirectRule:
        rule: Any = RULES[one_of("rule", self.rule, DIRECT_RULES)]
        feedback = recipe_of(one_of("feedback", self.feedback, DENSE), self.feedback_scale)
        wrapped: DirectRule = rule(
            networks, feedback=feedback, seed=derived_seed(self.first_seed, "feedback", self.draw)
        )
        return wrapped

    def _optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        if one_of("optimizer", self.optimizer, ("sgd", "adam")) == "sgd":
            return torch.optim.SGD(net.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
        if self.momentum:
            raise ArgumentError(f"momentum={self.momentum} is SGD's; give optimizer='sgd', or momentum=0 for Adam")
        return torch.optim.Adam(net.parameters(), self.lr, weight_decay=self.weight_decay)


class FiniteLosses(nn.Module):
    """Passes inputs on to an ensemble, and counts for each network the steps whose loss is a finite number.

    The count is a buffer, so it is saved and put back with the state of a training. Nothing waits for it: on a GPU the
    steps go on without a look at the numbers.

    Args:
        net: an ensemble, wrapped or not.
        networks: number of its networks.
    """

    finite_steps: Tensor

    def __init__(self, net: nn.Module, networks: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("finite_steps", torch.zeros(networks, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return the ensemble's outputs."""
        output: Tensor = self.net(x)
        return output

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy summed over networks and batch, and count."""
        losses = cross_entropies(output, labels)
        self.finite_steps += losses.detach() < math.inf  # False for NaN; a loss is never −∞
        return losses.sum()
