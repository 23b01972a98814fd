"""Convolutional nets, and the same ones connected otherwise, trained under a rule and measured at the end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from feedalign.alignment import alignability, gradient_alignment
from feedalign.feedback import Channelwise, Feedback, FromArray, FromMask, FromWeights, Gaussian, Smooth, Toeplitz
from feedalign.lab.data import load, resize, standardise
from feedalign.lab.experiments.verdict import Verdict
from feedalign.lab.training import one_thread, steps_per_epoch, train
from feedalign.networks import ConvNet, dense, locally_connected
from feedalign.rules import DFA, Backprop, DirectKolenPollack, DirectRule, ReadoutOnly

# Of every method, the rule and the recipe of its feedback; no rule but the controls' sees forward weights, and of the
# recipes only "weights" does, once.
METHODS: dict[str, tuple[type[DirectRule], Feedback]] = {
    "bp": (Backprop, Gaussian()),
    "readout": (ReadoutOnly, Gaussian()),
    "random": (DFA, Gaussian()),
    "channelwise": (DFA, Channelwise()),
    "smooth": (DFA, Smooth(2)),
    "optimal": (DFA, Toeplitz()),
    "mask": (DFA, FromMask()),
    "weights": (DFA, FromWeights()),
    "learned": (DirectKolenPollack, Gaussian()),
    "learned, smooth": (DirectKolenPollack, Smooth(2)),
}

# A number: shared within so many regions along each axis.
Connected = Literal["dense", "locally connected", "convolutional"] | int


@dataclass(frozen=True)
class Net:
    """A convolutional net and the images it sees.

    Attributes:
        image_size: images are averaged down to this height and width; 0 keeps them.
        channels: of the convolutions.
        strides: of the convolutions.
        epochs: passes through the data.
    """

    image_size: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all runs of an experiment have in common.

    Attributes:
        dataset: "digits", "mnist" or "cifar10".
        train_images: how many training images are used, the first ones.
        lr: of Adam, at the start of the cosine schedule.
        feedback_lr: of learned feedback, which is plain gradient descent.
        feedback_decay: its weight decay.
        batch_size: samples a step.
        seeds: runs of each kind, differing in initialisation, feedback and data order.
        probe: test images that alignment is measured on.
        first_seed: of the runs.
    """

    dataset: str
    train_images: int = 20_000
    lr: float = 1e-3
    feedback_lr: float = 0.1
    feedback_decay: float = 1e-2
    batch_size: int = 64
    seeds: int = 3
    probe: int = 500
    first_seed: int = 0


class _Task(NamedTuple):
    """Images [n, c, h, w], standardised, and labels [n]."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int


@cache
def _task(dataset: str, train_images: int, image_size: int) -> _Task:
    data = load(dataset)
    images = data.train_images[:train_images], data.test_images
    if image_size:
        images = resize(images[0], image_size), resize(images[1], image_size)
    train_x, test_x = standardise(*images)
    return _Task(train_x, data.train_labels[:train_images], test_x, data.test_labels, data.classes)


@one_thread()
def measured_run(settings: Settings, shape: Net, connected: Connected, method: str, seed: int) -> xr.Dataset:
    """Train one net and measure it.

    Nets of one shape and seed begin as one function and learn in one order, through one feedback: the matrices drawn
    for the convolutional net.

    Args:
        settings: of the experiment.
        shape: of the convolutional net.
        connected: how its layers are.
        method: one of `METHODS`.
        seed: of initialisation, feedback and, shifted, of the data's order.

    Returns:
        Test accuracy; gradient alignment by layer; weight alignment and alignability of the layers between points.
    """
    task = _task(settings.dataset, settings.train_images, shape.image_size)
    in_shape = (task.train_x.shape[1], task.train_x.shape[2], task.train_x.shape[3])
    model: nn.Module = ConvNet(in_shape, shape.channels, task.classes, stride=shape.strides, seed=seed)
    rule, recipe = METHODS[method]
    drawn = DFA(model, feedback=recipe, seed=seed, example_input=task.train_x[:1])
    matrices = FromArray(drawn.feedback_matrices)
    drawn.unwrap()
    learns: dict[str, Any] = (
        {"lr": settings.feedback_lr, "weight_decay": settings.feedback_decay} if rule.learns_feedback else {}
    )
    learner = rule(
        _connected(model, connected, in_shape),
        tuple(matrices.arrays),
        matrices,
        example_input=task.train_x[:1],
        **learns,
    )
    _train(settings, shape, task, learner, seed)
    learner.eval()
    probe = task.test_x[: settings.probe], task.test_y[: settings.probe]
    gradient = gradient_alignment(learner, functional.cross_entropy, *probe).layers
    layers = list(alignability(learner).layers.values())[:-1]  # the readout can align with anything
    with torch.no_grad():
        right = [learner(x).argmax(1) == y for x, y in zip(task.test_x.split(500), task.test_y.split(500), strict=True)]
    return xr.Dataset(
        {
            "test_accuracy": torch.cat(right).double().mean().item(),
            "gradient_alignment": ("layer", list(gradient.values())),
            "weight_alignment": ("weight_layer", [layer.weight_alignment for layer in layers]),
            "alignability": ("weight_layer", [layer.bound for layer in layers]),
        },
        coords={"layer": np.arange(1, len(gradient) + 1), "weight_layer": np.arange(2, len(layers) + 2)},
    )


def _connected(model: nn.Module, connected: Connected, in_shape: tuple[int, int, int]) -> nn.Module:
    if connected == "dense":
        return dense(model, in_shape)
    if connected == "convolutional":
        return model
    return locally_connected(model, in_shape, connected if isinstance(connected, int) else None)


def _train(settings: Settings, shape: Net, task: _Task, learner: DirectRule, seed: int) -> None:
    optimizer = torch.optim.Adam(learner.parameters(), settings.lr)
    steps = shape.epochs * steps_per_epoch(len(task.train_x), settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    train(
        learner,
        task.train_x,
        task.train_y,
        loss_fn=functional.cross_entropy,
        optimizer=optimizer,
        epochs=shape.epochs,
        batch_size=settings.batch_size,
        order=torch.Generator().manual_seed(10_000 + seed),
        before_step=lambda step: schedule.step() if step else None,
    )


def recovery(dataset: xr.Dataset) -> xr.DataArray:
    """Return what each method recovers of backprop's gain over the readout alone, run by run."""
    accuracy = dataset.test_accuracy
    readout, bp = (accuracy.sel(rule=method).mean("seed", skipna=False) for method in ("readout", "bp"))
    # Where backprop gains nothing there is nothing to recover.
    share: xr.DataArray = (accuracy - readout) / (bp - readout).where(bp > readout)
    return share


def mean_over_seeds(
    claim: str, values: xr.DataArray, threshold: float, side: Literal["above", "below"] = "above"
) -> Verdict:
    """Return the verdict on values [seed]: their mean, by the one-sided 95 % quantile of t away from the threshold."""
    seeds = values.sizes["seed"]
    return Verdict(
        claim=claim,
        effect=float(values.mean("seed", skipna=False)),
        spread=float(values.std("seed", ddof=1, skipna=False)) / np.sqrt(seeds),
        threshold=threshold,
        side=side,
        sample=f"{seeds} seeds; spread: standard error over seeds, one-sided 95 % (t)",
        margin=float(stats.t.isf(0.05, seeds - 1)),
    )
