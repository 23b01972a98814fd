"""The job of the experiment output-statistics: networks trained by DFA on pairs of outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from feedalign.alignment import weight_alignment
from feedalign.lab.experiments.common.ensembles import alignment_by_network, scaled_ensemble
from feedalign.lab.experiments.common.output_pairs import covariance_root
from feedalign.lab.runs import Desk, Job
from feedalign.lab.training import one_thread
from feedalign.rules import DFA
from feedalign.streams import derived_seed, numpy_generator

ACTIVATIONS: tuple[Literal["linear", "tanh", "relu"], ...] = ("linear", "tanh", "relu")
TARGETS = ("random", "realisable")
FIRST_MEASURED = 10  # before this step the weights are still those of the start


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all draws have in common.

    Attributes:
        alphas: values of α.
        betas: values of β.
        inputs: n_0, number of inputs, which are Gaussian.
        samples: size of the training set.
        width: width of the three hidden layers.
        init_scale: scale of the initial weights, in units of PyTorch's.
        lr: η, learning rate for the loss's mean over samples.
        steps: steps of full-batch descent.
        measurements: number of measured steps, evenly spaced in log time.
        first_seed: seed from which every draw gets its own.
    """

    alphas: tuple[float, ...] = (1.0, 0.5, 0.2)
    betas: tuple[float, ...] = (1.0, 0.5, 0.2)
    inputs: int = 9
    samples: int = 200
    width: int = 64
    init_scale: float = 0.1
    lr: float = 0.08
    steps: int = 250
    measurements: int = 20
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Training(Setting, Job):
    """One draw of inputs, targets, initial weights and feedback; all pairs (α, β) train side by side.

    Attributes:
        activation: "linear", "tanh" or "relu".
        target: "random" or "realisable".
        draw: number of the draw.
    """

    kind = "output-statistics-training"
    activation: Literal["linear", "tanh", "relu"]
    target: str
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Train; measure weight alignment and relative loss at times that are even in log time, and all at the end."""
        x, y = self._data()
        inputs = torch.from_numpy(x).float().expand(len(y), -1, -1)
        targets = torch.from_numpy(y).float()
        sizes = [self.inputs, *[self.width] * 3, 2]
        seed = derived_seed(self.first_seed, "network", self.draw)
        measured = np.geomspace(min(FIRST_MEASURED, self.steps), self.steps, self.measurements).round().astype(int)
        measured = np.unique(measured)
        weights, losses = [], []
        with one_thread():
            net = DFA(scaled_ensemble(sizes, self.activation, [seed] * len(y), self.init_scale), seed=seed)
            optimizer = torch.optim.SGD(net.parameters(), lr=self.lr / self.samples)
            for step in range(1, self.steps + 1):
                optimizer.zero_grad()
                squared_error(net(inputs), targets).backward()
                optimizer.step()
                desk.progress(step, self.steps)
                if step in measured:
                    weights.append(torch.stack(list(weight_alignment(net).per_network.values())).mean(0))
                    with torch.no_grad():
                        losses.append((net(inputs) - targets).square().sum((1, 2)) / targets.square().sum((1, 2)))
            by_layer, _ = alignment_by_network(net, squared_error, inputs, targets)
        found = {
            "gradient_alignment": by_layer.mean(0),
            "weight_alignment": weights[-1],
            "loss": losses[-1],
            "weight_alignment_course": torch.stack(weights),
            "loss_course": torch.stack(losses),
        }
        shape = len(self.alphas), len(self.betas)
        return xr.Dataset(
            {
                name: (("step", "alpha", "beta")[-1 - values.ndim :], values.double().unflatten(-1, shape).numpy())
                for name, values in found.items()
            },
            coords={
                "step": ("step", measured, {"units": "steps"}),
                "alpha": list(self.alphas),
                "beta": list(self.betas),
            },
        )

    def _data(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return inputs [samples, inputs], and targets [pairs (α, β), samples, 2].

        The covariance of the targets, around zero, is that of (α, β) within the sample.
        """
        rng = numpy_generator(self.first_seed, "data", self.draw)
        x = rng.standard_normal((self.samples, self.inputs))
        drawn = x @ rng.standard_normal((self.inputs, 2))
        white = whitened(drawn if self.target == "realisable" else rng.standard_normal((self.samples, 2)))
        return x, np.stack([white @ covariance_root(alpha, beta) for alpha in self.alphas for beta in self.betas])


def whitened(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return linear combinations w of the columns with wᵀw = n·1, the nearest such to the columns; [n, columns]."""
    left, _, right = np.linalg.svd(columns, full_matrices=False)
    nearest: NDArray[np.float64] = np.sqrt(len(columns)) * left @ right
    return nearest


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return half the squared error, summed: each sample and each network has the gradient that it would have alone."""
    return (output - target).square().sum() / 2
