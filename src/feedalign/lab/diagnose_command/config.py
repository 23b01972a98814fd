"""What `feedalign diagnose` can be asked; apart from what computes it, so that help and usage errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
