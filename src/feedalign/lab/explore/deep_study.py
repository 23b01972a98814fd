"""What the page computes of a deep network: it learns the digits under DFA and under backprop, epoch by epoch."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import cross_entropy

from feedalign.alignment import AlignmentMonitor
from feedalign.feedback import Uniform
from feedalign.lab import data
from feedalign.lab.training import one_thread, steps_per_epoch, train
from feedalign.networks import MLP
from feedalign.rules import RULES, Wrapped
from feedalign.streams import torch_generator

COMPARED = ("dfa", "backprop")
BATCH_SIZE = 32
PROBE = 200  # training images on which alignment is measured


@dataclass(frozen=True)
class DeepSetting:
    """What a reader can choose.

    Attributes:
        layers: number of hidden layers.
        width: units of each hidden layer.
        activation: "tanh" or "relu".
        lr: learning rate of plain SGD, for the loss's mean over a batch of 32.
        epochs: passes through the training images.
        seed: of initial weights, feedback and order of the images; both rules have the same.
    """

    layers: int = 3
    width: int = 64
    activation: str = "tanh"
    lr: float = 0.03
    epochs: int = 30
    seed: int = 0


@dataclass(frozen=True)
class Moment:
    """What was measured at one time under one rule.

    Attributes:
        epoch: passes through the data so far; a fraction within the first ones.
        accuracy: share of the test images that are told right.
        gradient: cosine of DFA's and backprop's derivative, for each hidden layer from the bottom.
        weight: cosine of a layer's weights and the product of its feedback, from layer 2 to the output.
    """

    epoch: float
    accuracy: float
    gradient: tuple[float, ...]
    weight: tuple[float, ...]


class DeepTraining:
    """Two networks of equal start, one under DFA and one under backprop, which learn an epoch when they are told to.

    Attributes:
        setting: what is trained.
        epoch: number of epochs that are done.
        moments: what was measured so far, by rule: ten times a decade of steps, and after every epoch.

    Raises:
        ArgumentError: a value is out of range.
    """

    def __init__(self, setting: DeepSetting) -> None:
        self.setting = setting
        self.epoch = 0
        self.moments: dict[str, list[Moment]] = {rule: [] for rule in COMPARED}
        self._turn = threading.Lock()
        self._learners = {rule: _Learner(rule, setting, self.moments[rule]) for rule in COMPARED}

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.setting.epochs

    def advance(self) -> None:
        """Train both networks for an epoch, if there is one left. Threads that call this at once take turns.

        Raises:
            OutputError: a network has diverged; lower the learning rate.
        """
        with self._turn:  # a page asks again when the connection broke, whether or not the epoch is still under way
            if not self.done:
                for learner in self._learners.values():
                    learner.epoch(self.epoch)
                self.epoch += 1


class _Learner:
    """One network, its optimizer and what is measured of it."""

    def __init__(self, rule: str, setting: DeepSetting, moments: list[Moment]) -> None:
        self.images = images()
        sizes = [self.images.train_images.shape[1], *[setting.width] * setting.layers, self.images.classes]
        network = MLP(sizes, setting.activation, seed=setting.seed)
        self.net: Wrapped = RULES[rule](network, feedback=Uniform(), seed=setting.seed)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=setting.lr)
        self.order = torch_generator(setting.seed, "order")
        self.moments = moments
        probe = self.images.train_images[:PROBE], self.images.train_labels[:PROBE]
        self.monitor = AlignmentMonitor(self.net, cross_entropy, *probe, every="log")

    @one_thread()
    def epoch(self, done: int) -> None:
        """Train for an epoch, after `done` epochs."""
        per_epoch = steps_per_epoch(len(self.images.train_images), BATCH_SIZE)

        def measure(step: int) -> None:
            """Called before each step of the epoch, and once after the last step."""
            epoch = done + step / per_epoch
            if self.moments and self.moments[-1].epoch >= epoch:  # the end of the last epoch is the start of this one
                return
            steps = done * per_epoch + step
            # Besides the times of the monitor, the end of every epoch: a reader who looks on sees each epoch.
            measured = self.monitor.measure(steps) if step == per_epoch else self.monitor(steps)
            if measured is None or measured.gradient is None:
                return
            with torch.no_grad():
                right = self.net(self.images.test_images).argmax(1) == self.images.test_labels
            gradient, weight = measured.gradient.layers, measured.weight.layers
            self.moments.append(
                Moment(epoch, right.double().mean().item(), tuple(gradient.values()), tuple(weight.values()))
            )

        train(
            self.net,
            self.images.train_images,
            self.images.train_labels,
            loss_fn=cross_entropy,
            optimizer=self.optimizer,
            epochs=1,
            batch_size=BATCH_SIZE,
            order=self.order,
            before_step=measure,
        )


@functools.cache
def images() -> data.ImageData:
    """Return the digits that come with scikit-learn, standardised, as vectors."""
    digits = data.load("digits")
    train_x, test_x = data.prepare(digits)
    return replace(digits, train_images=train_x, test_images=test_x)
