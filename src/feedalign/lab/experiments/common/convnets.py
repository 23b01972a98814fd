"""Convolutional nets, and the same nets with other connections, trained under a rule and measured at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

from feedalign.alignment import alignability, gradient_alignment
from feedalign.feedback import Channelwise, Feedback, FromArray, FromMask, FromWeights, Gaussian, Smooth, Toeplitz
from feedalign.lab.data import ImageData
from feedalign.lab.experiments.common.recovery import recovered
from feedalign.lab.experiments.common.sampling import prepared
from feedalign.lab.runs import Desk, Job
from feedalign.lab.training import one_thread, steps_per_epoch, train
from feedalign.networks import ConvNet, dense, locally_connected
from feedalign.rules import DFA, Backprop, DirectKolenPollack, DirectRule, ReadoutOnly
from feedalign.streams import derived_seed, numpy_generator, torch_generator

# A variant is a control rule, by its name, or DFA, by the kind of its feedback: a rule, and a way to draw feedback.
# Apart from backprop, no rule sees forward weights; of the kinds of feedback only "weights" does, when it is drawn.
VARIANTS: dict[str, tuple[type[DirectRule], Feedback]] = {
    "backprop": (Backprop, Gaussian()),
    "readout-only": (ReadoutOnly, Gaussian()),
    "random": (DFA, Gaussian()),
    "channelwise": (DFA, Channelwise()),
    "smooth": (DFA, Smooth(2)),
    "optimal": (DFA, Toeplitz()),
    "mask": (DFA, FromMask()),
    "weights": (DFA, FromWeights()),
    "learned": (DirectKolenPollack, Gaussian()),
    "learned, smooth": (DirectKolenPollack, Smooth(2)),
}

# What one independent run is.
SEED = "a seed of initial weights, feedback and data order"

# A number: the output map is cut into so many regions along each axis, each with a kernel of its own.
Connected = Literal["dense", "locally connected", "convolutional"] | int


@dataclass(frozen=True)
class NetConfig:
    """A convolutional net and the images it sees.

    Attributes:
        image_size: height and width to which images are averaged down; 0 keeps the images as they are.
        channels: channels of the convolutions, from the bottom.
        strides: strides of the convolutions.
        epochs: passes through the data.
    """

    image_size: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    epochs: int


@dataclass(frozen=True, kw_only=True)
class ConvnetSetting:
    """What all runs of an experiment on convolutional nets have in common.

    Attributes:
        net: the convolutional net, and the images it sees.
        dataset: name of a data set, as `feedalign.lab.data.load` knows it.
        train_images: number of training images; the first ones of the data set are used.
        lr: learning rate of Adam at the start of the cosine schedule.
        feedback_lr: learning rate of learned feedback, for plain gradient descent.
        feedback_decay: weight decay of learned feedback.
        batch_size: samples in a step.
        probe: number of test images on which alignment is measured.
        first_seed: seed from which every run gets its own.
    """

    net: NetConfig
    dataset: str
    train_images: int = 20_000
    lr: float = 1e-3
    feedback_lr: float = 0.1
    feedback_decay: float = 1e-2
    batch_size: int = 64
    probe: int = 500
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Training(ConvnetSetting, Job):
    """One net, trained by one variant and measured at the end.

    Nets of one shape and seed begin as the same function. They see the data in the same order and learn through the
    same feedback, the matrices drawn for the convolutional net; unless `feedback` asks for another draw.

    Attributes:
        connected: which connections the layers have.
        variant: one of `VARIANTS`.
        scattered: share of the rows of every feedback matrix that change places; see `_scattered`.
        feedback: number of the draw of feedback (and of the rows that change places) for a net; 0 for the first.
        seed: number of the seed. Initial weights, feedback and data order each have a stream of their own.
    """

    kind = "convnets-training"
    connected: Connected
    variant: str
    scattered: float = 0.0
    feedback: int = 0
    seed: int

    @one_thread()
    def compute(self, desk: Desk) -> xr.Dataset:  # noqa: ARG002 — small nets
        """Return accuracy, alignment of gradients and updates by layer, and alignability and alignment of weights."""
        data = prepared(self.dataset, self.net.image_size, self.train_images)
        seed = derived_seed(self.first_seed, "network", self.seed)
        learner = self._learner(data, seed)
        self._train(data, learner, seed)
        return _measured(learner, data, self.probe)

    def _learner(self, data: ImageData, seed: int) -> DirectRule:
        example = data.train_images[:1]
        in_shape = (example.shape[1], example.shape[2], example.shape[3])
        model: nn.Module = ConvNet(in_shape, self.net.channels, data.classes, stride=self.net.strides, seed=seed)
        rule, recipe = VARIANTS[self.variant]
        draw = derived_seed(seed, "another draw of feedback", self.feedback) if self.feedback else seed
        drawn = DFA(model, feedback=recipe, seed=draw, example_input=example)
        matrices = FromArray(_scattered(drawn.feedback_matrices, self.scattered, draw))
        drawn.unwrap()
        options: dict[str, Any] = {"example_input": example}
        if rule.learns_feedback:
            options |= {"lr": self.feedback_lr, "weight_decay": self.feedback_decay}
        net = _connected(model, self.connected, in_shape)
        return rule(net, tuple(matrices.arrays), matrices, seed, **options)

    def _train(self, data: ImageData, learner: DirectRule, seed: int) -> None:
        optimizer = torch.optim.Adam(learner.parameters(), self.lr)
        steps = self.net.epochs * steps_per_epoch(len(data.train_images), self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        train(
            learner,
            data.train_images,
            data.train_labels,
            loss_fn=functional.cross_entropy,
            optimizer=optimizer,
            epochs=self.net.epochs,
            batch_size=self.batch_size,
            order=torch_generator(seed, "order"),
            before_step=lambda step: schedule.step() if step else None,
        )


def _measured(learner: DirectRule, data: ImageData, probe: int) -> xr.Dataset:
    """Measure a trained net; alignments on the first images of the test set."""
    learner.eval()
    batch = functional.cross_entropy, data.test_images[:probe], data.test_labels[:probe]
    gradient = gradient_alignment(learner, *batch).layers
    update = gradient_alignment(learner, *batch, at="parameters").layers
    layers = list(alignability(learner).layers.values())[:-1]  # the readout can align with anything
    with torch.no_grad():
        batches = zip(data.test_images.split(500), data.test_labels.split(500), strict=True)
        right = [learner(x).argmax(1) == y for x, y in batches]
    return xr.Dataset(
        {
            "test_accuracy": torch.cat(right).double().mean().item(),
            "gradient_alignment": ("layer", list(gradient.values())),
            "update_alignment": ("layer", list(update.values())),
            "weight_alignment": ("weight_layer", [layer.weight_alignment for layer in layers]),
            "alignability": ("weight_layer", [layer.bound for layer in layers]),
        },
        coords={"layer": np.arange(1, len(gradient) + 1), "weight_layer": np.arange(2, len(layers) + 2)},
    )


def _scattered(matrices: dict[str, Tensor], share: float, seed: int) -> dict[str, Tensor]:
    """Return the matrices after a share of the rows of each, chosen at random, have changed places at random.

    Entries, norms, rank and FᵀF stay the same. Only the positions in the image and the channels change that a row is
    sent to. A dense net cannot tell: to permute the rows is to number the hidden units differently.
    """
    moved = {}
    for name, matrix in matrices.items():
        rng = numpy_generator(seed, "scatter", name)
        chosen = rng.permutation(len(matrix))[: round(share * len(matrix))]
        moved[name] = matrix.clone()
        moved[name][chosen] = matrix[rng.permutation(chosen)]
    return moved


def _connected(model: nn.Module, connected: Connected, in_shape: tuple[int, int, int]) -> nn.Module:
    """Return the same function with other connections."""
    if connected == "dense":
        return dense(model, in_shape)
    if connected == "convolutional":
        return model
    return locally_connected(model, in_shape, connected if isinstance(connected, int) else None)


def recovery(dataset: xr.Dataset) -> xr.DataArray:
    """Return which share of backprop's gain in accuracy over the readout alone each run reaches.

    Both controls are those of the same seed, so that values of different seeds are independent.
    """
    accuracy = dataset.test_accuracy
    return recovered(accuracy, *(accuracy.sel(variant=name, drop=True) for name in ("readout-only", "backprop")))
