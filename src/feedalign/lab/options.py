"""The options of `feedalign train`, `theory` and `diagnose`, apart from what computes, so that help comes at once."""

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
        "backprop", "conditioned-dfa", "dfa", "direct-kolen-pollack", "drtp", "fa", "frozen", "kolen-pollack",
        "readout-only", "sign-symmetry",
    ] = "dfa"  # fmt: skip
    feedback: Literal[
        "automatic", "gaussian", "uniform", "rademacher", "orthogonal", "low-rank", "sparse", "shared", "tokenwise",
        "channelwise", "smooth", "toeplitz", "mask", "weights",
    ] = "automatic"  # fmt: skip
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


@dataclass(frozen=True)
class TheoryConfig:
    """A teacher, a student, and how it learns.

    Attributes:
        activation: activation function of student and teacher.
        students: K, hidden units of the student.
        teachers: M, hidden units of the teacher.
        rules: learning rules; all rules have the same start and the same inputs.
        lr: η, learning rate of the first layer.
        lr_readout: η_v, learning rate of the second layer; equal to lr unless given; 0 freezes the layer.
        noise_std: σ of the label noise.
        batch_size: inputs over which a step averages its update.
        readout: second layer of the teacher, by kind (random: Gaussian; uniform: all one; alternating: ±1) or as M
            numbers.
        feedback: F, by kind (random: Gaussian; positive: its absolute value; initial: the student's first v;
            orthogonal: to the teacher's readout) or as K numbers.
        w_std: standard deviation of the student's initial first layer.
        v_std: standard deviation of the student's initial second layer.
        input_dim: N, the number of inputs of the initial random first layers and of the simulation.
        end_time: when learning ends, in steps / N.
        measurements: number of measured times besides time 0, evenly spaced in log time.
        stop_at_error: the integration of the theory stops when the generalisation error has fallen to this value.
        simulate: number of simulated runs at finite N, beside the theory of infinite N; 0 for theory alone.
        seed: seed of teacher, start, feedback and simulated runs.
        method: solver, one of scipy.integrate.solve_ivp's.
        rtol: the solver's relative tolerance.
        atol: the solver's absolute tolerance.
    """

    activation: Literal["erf", "relu", "linear"] = "erf"
    students: int = 2
    teachers: int = 2
    rules: tuple[Literal["dfa", "backprop"], ...] = ("dfa", "backprop")
    lr: float = 0.1
    lr_readout: float | None = None
    noise_std: float = 0.0
    batch_size: int = 1
    readout: Literal["random", "uniform", "alternating"] | tuple[float, ...] = "uniform"
    feedback: Literal["random", "positive", "initial", "orthogonal"] | tuple[float, ...] = "random"
    w_std: float = 0.01
    v_std: float = 0.01
    input_dim: int = 500
    end_time: float = 1000.0
    measurements: int = 40
    stop_at_error: float | None = None
    simulate: int = 0
    seed: int = 0
    method: Literal["LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF"] = "LSODA"
    rtol: float = 1e-8
    atol: float = 1e-10


@dataclass(frozen=True)
class DiagnoseConfig:
    """What to diagnose: a data set and a network for it, or a model, loss and batches of your own.

    Attributes:
        dataset: digits, or one that `feedalign data fetch` knows; digits unless a model is given.
        model: "package.module:function", a function without arguments that returns (model, loss function, batches)
            or (model, loss function, batches, points). The model may be wrapped in a rule. Batches are pairs (x, y).
        repeat: LABEL=TIMES: how often each training sample of a class is to occur, 3=20 for twenty times.
        hidden: widths of the hidden layers of a data set's network.
        activation: of a data set's network.
        points: feedback points of a model of your own, by dotted name; found in an nn.Sequential.
        feedback: how the feedback matrices are drawn, unless the model is wrapped already; channelwise and smooth for
            images.
        compare: train with ConditionedDFA too, and tell which is faster. A model that is wrapped already is not
            compared.
        steps: of training before what is measured is compared with what was expected.
        lr: learning rate of plain gradient descent.
        batch_size: samples a step of a data set.
        samples: looked at before training, at most.
        probe: samples on which alignment is measured.
        seed: of weights, feedback and order of the samples.
    """

    dataset: str | None = None
    model: str | None = None
    repeat: tuple[str, ...] = ()
    hidden: tuple[int, ...] = (100, 100)
    activation: Literal["tanh", "relu", "linear"] = "tanh"
    points: tuple[str, ...] = ()
    feedback: Literal["gaussian", "uniform", "orthogonal", "rademacher", "channelwise", "smooth"] = "gaussian"
    compare: bool = True
    steps: int = 200
    lr: float = 0.1
    batch_size: int = 32
    samples: int = 10_000
    probe: int = 1000
    seed: int = 0
