"""What `feedalign train` can be asked; apart from what computes it, so that help and usage errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainConfig:
    """A data set, a network, a rule, and how the network is trained.

    Attributes:
        dataset: digits, a data set that `feedalign data fetch` knows, or an .npz file of your own with the arrays
            x_train, y_train, x_test and y_test.
        image_size: height and width to which images are averaged down; 0 keeps the images as they are.
        classes: labels that are kept, of training and test samples: the first of them becomes label 0, the second label
            1, and so on. All are kept unless given.
        train_samples: number of training samples, drawn at random by seed_data; 0 takes all of them.
        label_noise: share of the training labels that is drawn at random.
        network: mlp, convnet, or "package.module:function" for a network of your own. The function takes no arguments
            and returns the bare model, or (model, points).
        hidden: widths of the hidden layers of an mlp.
        channels: channels of the convolutions of a convnet, from the bottom; each halves height and width.
        activation: of an mlp or a convnet.
        bias: whether the layers of an mlp have biases.
        points: feedback points of a network of your own, by dotted name; found in an nn.Sequential.
        rule: learning rule.
        feedback: how the feedback matrices are drawn; automatic leaves that to the rule.
        feedback_scale: scale of the entries; the recipe's own unless given.
        feedback_lr: learning rate of feedback that is learned.
        feedback_decay: weight decay of feedback that is learned.
        optimizer: of the weights. The loss is the mean cross-entropy.
        lr: learning rate; 0.1 for sgd and 0.001 for adam and adamw unless given.
        momentum: of sgd.
        weight_decay: of the optimizer.
        schedule: of the learning rate; cosine lets it fall to 0 at the end.
        epochs: passes through the training data.
        batch_size: samples in a step.
        seed: stands for each of the next three seeds that is not given.
        seed_weights: of the initial weights.
        seed_feedback: of the feedback.
        seed_data: of the choice and the order of the data, and of the label noise.
        measurements: number of measured times after time 0, evenly spaced in log time.
        probe: number of training samples on which gradient alignment is measured.
    """

    dataset: str = "digits"
    image_size: int = 0
    classes: tuple[int, ...] = ()
    train_samples: int = 0
    label_noise: float = 0.0
    network: str = "mlp"
    hidden: tuple[int, ...] = (100, 100)
    channels: tuple[int, ...] = (16, 32)
    activation: Literal["tanh", "relu", "linear"] = "tanh"
    bias: bool = True
    points: tuple[str, ...] = ()
    rule: Literal[
        "backprop",
        "conditioned-dfa",
        "dfa",
        "direct-kolen-pollack",
        "drtp",
        "fa",
        "frozen",
        "kolen-pollack",
        "readout-only",
        "sign-symmetry",
    ] = "dfa"
    feedback: Literal[
        "automatic",
        "gaussian",
        "uniform",
        "rademacher",
        "orthogonal",
        "low-rank",
        "sparse",
        "shared",
        "tokenwise",
        "channelwise",
        "smooth",
        "toeplitz",
        "mask",
        "weights",
    ] = "automatic"
    feedback_scale: float | None = None
    feedback_lr: float = 0.1
    feedback_decay: float = 0.01
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    epochs: int = 10
    batch_size: int = 32
    seed: int = 0
    seed_weights: int | None = None
    seed_feedback: int | None = None
    seed_data: int | None = None
    measurements: int = 20
    probe: int = 500
