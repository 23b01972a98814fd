r"""Output statistics: correlated or unequal outputs align worse, in linear and in non-linear networks.

Claim: the conditioning of the outputs' covariance decides how well a network trained by DFA ends up aligned. Gradient
alignment falls as the outputs become unequal in size (α falls) or similar to each other (β falls). This is claimed for
linear, tanh and ReLU networks on targets that can be computed from the inputs. On random targets it is claimed for
linear networks, as in the original study, and of α for tanh networks. ReLU networks on random targets show no such
order (the figure shows them).

Setting: networks with three hidden layers and two outputs of covariance [[1, α(1−β)], [α(1−β), α²]], full-batch descent
on ½|ŷ − y|², from small weights. Random targets have nothing to do with the inputs, as in the original study;
realisable targets are a linear function of the inputs. There are many more samples than inputs, so that a linear
network cannot fit random targets: with fewer samples than inputs every target could be learned. All pairs (α, β) of one
draw share inputs, initial weights and feedback.

Source: Refinetti et al. (2021), section 3, there for random targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.ensembles import alignment_by_network, scaled_ensemble
from feedalign.lab.experiments.common.gathering import chosen, on_grid
from feedalign.lab.experiments.common.outputs import covariance, covariance_root
from feedalign.lab.experiments.common.verdict import Side, Verdict, weakest
from feedalign.lab.runs import Desk, Job
from feedalign.lab.training import one_thread
from feedalign.rules import DFA
from feedalign.streams import derived_seed, numpy_generator
from feedalign.style import figure_style, layer_colours, letter

NAME = "output-statistics"
CLAIM = CLAIMS[NAME]
ACTIVATIONS: tuple[Literal["linear", "tanh", "relu"], ...] = ("linear", "tanh", "relu")
TARGETS = ("random", "realisable")
LABELS = {"linear": "linear", "tanh": "tanh", "relu": "ReLU"}


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        alphas: values of α.
        betas: values of β.
        inputs: n_0, number of inputs, which are Gaussian.
        samples: size of the training set.
        width: width of the three hidden layers.
        init_scale: scale of the initial weights, in units of PyTorch's.
        lr: η, learning rate for the loss's mean over samples.
        steps: steps of full-batch descent.
        draws: independent inputs, targets, initial weights and feedback.
        first_seed: seed from which every draw gets its own.
    """

    alphas: tuple[float, ...] = (1.0, 0.5, 0.2)
    betas: tuple[float, ...] = (1.0, 0.5, 0.2)
    inputs: int = 9
    samples: int = 200
    width: int = 64
    init_scale: float = 0.1
    lr: float = 0.04
    steps: int = 700
    draws: int = 10
    first_seed: int = 0


CONFIGS = {
    "quick": Config(),
    "paper": Config(
        alphas=(1.0, 0.8, 0.6, 0.4, 0.2), betas=(1.0, 0.8, 0.6, 0.4, 0.2), samples=1000, width=100, draws=20,
        steps=3000,
    ),
}  # fmt: skip
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


@dataclass(frozen=True)
class Training(Job):
    """One draw of inputs, targets, initial weights and feedback; all pairs (α, β) train side by side.

    Attributes:
        activation: "linear", "tanh" or "relu".
        target: "random" or "realisable".
        alphas: as in `Config`, and so are `betas`, `inputs`, `samples`, `width`, `init_scale`, `lr`, `steps` and
            `first_seed`.
        draw: number of the draw.
    """

    kind = f"{NAME}-training"
    activation: Literal["linear", "tanh", "relu"]
    target: str
    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    inputs: int
    samples: int
    width: int
    init_scale: float
    lr: float
    steps: int
    first_seed: int
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Train, and measure gradient and weight alignment (means over layers) and relative loss at the end."""
        x, y = self._data()
        inputs = torch.from_numpy(x).float().expand(len(y), -1, -1)
        targets = torch.from_numpy(y).float()
        sizes = [self.inputs, *[self.width] * 3, 2]
        seed = derived_seed(self.first_seed, "network", self.draw)
        with one_thread():
            net = DFA(scaled_ensemble(sizes, self.activation, [seed] * len(y), self.init_scale), seed=seed)
            optimizer = torch.optim.SGD(net.parameters(), lr=self.lr / self.samples)
            for step in range(self.steps):
                optimizer.zero_grad()
                squared_error(net(inputs), targets).backward()
                optimizer.step()
                desk.progress(step + 1, self.steps)
            by_layer, by_weight = alignment_by_network(net, squared_error, inputs, targets)
            with torch.no_grad():
                loss = (net(inputs) - targets).square().sum((1, 2)) / targets.square().sum((1, 2))
        found = {
            "gradient_alignment": by_layer.mean(0), "weight_alignment": by_weight.mean(0), "loss": loss.double(),
        }  # fmt: skip
        shape = len(self.alphas), len(self.betas)
        return xr.Dataset(
            {name: (("alpha", "beta"), values.double().numpy().reshape(shape)) for name, values in found.items()},
            coords={"alpha": list(self.alphas), "beta": list(self.betas)},
        )

    def _data(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return inputs [samples, inputs], and targets [pairs (α, β), samples, 2]."""
        rng = numpy_generator(self.first_seed, "data", self.draw)
        x = rng.standard_normal((self.samples, self.inputs))
        teacher = rng.standard_normal((self.inputs, 2)) / np.sqrt(self.inputs)
        white = x @ teacher if self.target == "realisable" else rng.standard_normal((self.samples, 2))
        return x, np.stack([white @ covariance_root(alpha, beta) for alpha in self.alphas for beta in self.betas])


def jobs(config: Config) -> list[Training]:
    """Return a job for every draw of every activation and kind of target."""
    shared = chosen(config, Training)
    return [
        Training(activation=activation, target=target, draw=draw, **shared)
        for activation in ACTIVATIONS
        for target in TARGETS
        for draw in range(config.draws)
    ]


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put draws, kinds of target and activations side by side."""
    dataset = on_grid(results, activation=len(ACTIVATIONS), target=len(TARGETS), draw=config.draws)
    return dataset.assign_coords(activation=list(ACTIVATIONS), target=list(TARGETS))


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return half the squared error, summed: each sample and each network has the gradient that it would have alone."""
    return (output - target).square().sum() / 2


def condition_numbers(dataset: xr.Dataset) -> NDArray[np.float64]:
    """Return the condition number of the outputs' covariance, [alpha, beta]."""
    return np.array([[np.linalg.cond(covariance(float(a), float(b))) for b in dataset.beta] for a in dataset.alpha])


def rank_correlations(dataset: xr.Dataset) -> xr.DataArray:
    """Return Spearman's correlation of condition number and gradient alignment over (α, β), for every run."""
    conditions = np.log(condition_numbers(dataset)).ravel()
    correlations: xr.DataArray = xr.apply_ufunc(
        lambda values: stats.spearmanr(conditions, values.ravel()).statistic,
        dataset.gradient_alignment,
        input_core_dims=[["alpha", "beta"]],
        vectorize=True,
    )
    return correlations


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the ranks and both falls; the weakest of the activations named in a claim decides."""
    gradient, alpha, beta = dataset.gradient_alignment, dataset.alpha, dataset.beta
    ranks = rank_correlations(dataset)
    of_alpha = (gradient.sel(alpha=alpha.max()) - gradient.sel(alpha=alpha.min())).mean("beta", skipna=False)
    of_beta = (gradient.sel(beta=beta.max()) - gradient.sel(beta=beta.min())).mean("alpha", skipna=False)
    rank = "rank correlation of the outputs' condition number and gradient alignment over (α, β)"
    fall = "gradient alignment at the largest minus that at the smallest value of"
    learnable = ranks.sel(target="realisable"), of_alpha.sel(target="realisable"), of_beta.sel(target="realisable")
    return [
        _weakest(f"targets that can be learned: {rank} (weakest activation)", learnable[0], ACTIVATIONS, 0.0, "below"),
        _weakest(f"targets that can be learned: {fall} α (weakest activation)", learnable[1], ACTIVATIONS, 0.0),
        _weakest(f"targets that can be learned: {fall} β (weakest activation)", learnable[2], ACTIVATIONS, 0.0),
        _weakest(f"random targets, linear networks: {rank}", ranks.sel(target="random"), ("linear",), 0.0, "below"),
        _weakest(
            f"random targets, linear and tanh networks: {fall} α (weaker activation)",
            of_alpha.sel(target="random"),
            ("linear", "tanh"),
            0.0,
        ),
    ]


def _weakest(
    claim: str, values: xr.DataArray, activations: tuple[str, ...], threshold: float, side: Side = "above"
) -> Verdict:
    """Return the verdict of the activation that speaks most against the claim; values [activation, draw]."""
    return weakest(
        Verdict.of_mean(
            claim,
            values.sel(activation=activation),
            threshold,
            side,
            sample=f"a draw of inputs, targets, weights and feedback; {LABELS[activation]}",
        )
        for activation in activations
    )


def plot(dataset: xr.Dataset) -> Figure:
    """Draw gradient and weight alignment against the condition number, for every activation."""
    conditions = condition_numbers(dataset).ravel()
    order = np.argsort(conditions)
    with figure_style():
        figure = Figure(figsize=(8.6, 2.9), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        colours = layer_colours(2)
        for axes, activation, text in zip(panels, ACTIVATIONS, "abc", strict=True):
            for name, colour, label in zip(
                ("gradient_alignment", "weight_alignment"), colours, ("gradients", "weights"), strict=True
            ):
                for target, style, face in zip(TARGETS, ("-", "--"), (colour, "white"), strict=True):
                    values = dataset[name].sel(activation=activation, target=target).transpose("draw", "alpha", "beta")
                    runs = values.values.reshape(len(values), -1)[:, order]
                    axes.errorbar(
                        conditions[order], runs.mean(0), runs.std(0, ddof=1), ls=style, lw=1, marker="o",
                        ms=3.5, color=colour, markerfacecolor=face, label=f"{label}, {target}",
                    )  # fmt: skip
            axes.set(xscale="log", xlabel="condition number of the outputs", ylim=(0, 1.03))
            letter(axes, text, LABELS[activation])
        panels[0].set_ylabel("alignment at the end")
        panels[0].legend(loc="lower left", fontsize=7)
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    pairs = dataset.sizes["alpha"] * dataset.sizes["beta"]
    return (
        "Gradient and weight alignment, means over layers, of networks trained by DFA on two outputs of covariance "
        "[[1, α(1−β)], [α(1−β), α²]], against the condition number of this covariance. Points: mean and standard "
        f"deviation of {dataset.sizes['draw']} draws at each of {pairs} pairs (α, β); "
        "filled: random targets, open: realisable ones."
    )
