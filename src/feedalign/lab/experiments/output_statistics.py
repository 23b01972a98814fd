r"""Output statistics: correlated or unequal outputs align worse, in linear and in non-linear networks.

Claim: the conditioning of the outputs' covariance decides how well a network trained by DFA ends up aligned. As outputs
become unequal in size (α falls) or alike (β falls) gradient alignment falls, whether the targets can be computed from
the inputs or not.

Setting: networks with three hidden layers and two outputs of covariance [[1, α(1−β)], [α(1−β), α²]], full-batch descent
on ½|ŷ − y|², from small weights. Random targets have nothing to do with the inputs, as in the original study;
realisable ones are a linear function of them; there are more inputs than samples, so a linear network can fit both.
All pairs (α, β) of one draw share inputs, initial weights and feedback.

Source: Refinetti et al. (2021), section 3, there for random targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import sqrtm
from torch import Tensor

from feedalign.alignment import gradient_alignment, weight_alignment
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.lab.training import one_thread
from feedalign.networks import EnsembleMLP
from feedalign.rules import DFA
from feedalign.style import figure_style, layer_colours, letter

NAME = "output-statistics"
CLAIM = (
    "The worse the covariance of the outputs is conditioned, the worse the gradients of networks trained with direct "
    "feedback alignment align, linear or not, with targets that can be learned or not."
)
ACTIVATIONS: tuple[Literal["linear", "tanh", "relu"], ...] = ("linear", "tanh", "relu")
TARGETS = ("random", "realisable")
LABELS = {"linear": "linear", "tanh": "tanh", "relu": "ReLU"}


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        alphas: values of α.
        betas: values of β.
        inputs: n_0; Gaussian.
        samples: of the training set.
        width: of the three hidden layers.
        init_scale: of the initial weights, in units of PyTorch's.
        lr: η, of the loss's mean over samples.
        steps: of full-batch descent.
        draws: independent inputs, targets, initial weights and feedback.
        first_seed: of the draws.
    """

    alphas: tuple[float, ...] = (1.0, 0.5, 0.2)
    betas: tuple[float, ...] = (1.0, 0.5, 0.2)
    inputs: int = 128
    samples: int = 48
    width: int = 64
    init_scale: float = 0.1
    lr: float = 0.04
    steps: int = 700
    draws: int = 5
    first_seed: int = 0


CONFIGS = {
    "quick": Config(),
    "paper": Config(
        alphas=(1.0, 0.8, 0.6, 0.4, 0.2), betas=(1.0, 0.8, 0.6, 0.4, 0.2), width=100, draws=20,
        steps=3000,
    ),
}  # fmt: skip
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Train all pairs (α, β) of one draw side by side, for every activation and kind of target."""
    jobs = [(a, t, draw) for a in ACTIVATIONS for t in TARGETS for draw in range(config.draws)]
    shape = (len(ACTIVATIONS), len(TARGETS), config.draws, len(config.alphas), len(config.betas))
    names = ("gradient_alignment", "weight_alignment", "loss")
    results = {name: np.empty((len(jobs), shape[3] * shape[4])) for name in names}
    with one_thread():
        for done, job in enumerate(jobs):
            for name, values in zip(names, _train(config, *job), strict=True):
                results[name][done] = values
            progress(done + 1, len(jobs))
    dims = ("activation", "target", "draw", "alpha", "beta")
    return xr.Dataset(
        {name: (dims, values.reshape(shape)) for name, values in results.items()},
        coords={
            "activation": list(ACTIVATIONS),
            "target": list(TARGETS),
            "alpha": list(config.alphas),
            "beta": list(config.betas),
        },
    )


def covariance(alpha: float, beta: float) -> NDArray[np.float64]:
    """Return the covariance of the two outputs, [2, 2]."""
    return np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])


def _train(
    config: Config, activation: Literal["linear", "tanh", "relu"], target: str, draw: int
) -> tuple[NDArray[np.float64], ...]:
    """Return gradient and weight alignment (mean over layers) and relative loss at the end, one for each (α, β)."""
    seed = config.first_seed + draw
    rng = np.random.default_rng([seed, 1])
    cells = [(alpha, beta) for alpha in config.alphas for beta in config.betas]
    x = rng.standard_normal((config.samples, config.inputs))
    teacher = rng.standard_normal((config.inputs, 2)) / np.sqrt(config.inputs)
    white = x @ teacher if target == "realisable" else rng.standard_normal((config.samples, 2))
    y = np.stack([white @ np.real(sqrtm(covariance(*cell))) for cell in cells])
    inputs = torch.from_numpy(x).float().expand(len(cells), -1, -1)
    targets = torch.from_numpy(y).float()
    sizes = [config.inputs, *[config.width] * 3, 2]
    networks = EnsembleMLP(len(cells), sizes, activation, bias=False, seeds=[seed] * len(cells))
    with torch.no_grad():
        for weight in networks.parameters():
            weight.mul_(config.init_scale)
    net = DFA(networks, seed=seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=config.lr / config.samples)
    for _ in range(config.steps):
        optimizer.zero_grad()
        squared_error(net(inputs), targets).backward()
        optimizer.step()
    gradient = gradient_alignment(net, squared_error, inputs, targets)
    by_layer = torch.stack([cosines.nanmean(-1) for cosines in gradient.per_sample.values()])
    by_weight = torch.stack(list(weight_alignment(net).per_network.values()))
    with torch.no_grad():
        loss = (net(inputs) - targets).square().sum((1, 2)) / targets.square().sum((1, 2))
    return by_layer.mean(0).numpy(), by_weight.mean(0).numpy(), loss.double().numpy()


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, summed over samples and networks, so that each has the gradient it would have alone."""
    return (output - target).square().sum() / 2


def rank_correlations(dataset: xr.Dataset) -> xr.DataArray:
    """Return Spearman's correlation of condition number and gradient alignment over (α, β), of every other index."""
    conditions = [np.linalg.cond(covariance(float(a), float(b))) for a in dataset.alpha for b in dataset.beta]
    correlations: xr.DataArray = xr.apply_ufunc(
        lambda values: stats.spearmanr(np.log(conditions), values.ravel()).statistic,
        dataset.gradient_alignment,
        input_core_dims=[["alpha", "beta"]],
        vectorize=True,
    )
    return correlations


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold the ranks and both falls against the claim, the worst activation and kind of target deciding."""
    draws = dataset.sizes["draw"]
    t = float(stats.t.isf(0.05, draws - 1))
    gradient = dataset.gradient_alignment
    falls = {
        "α": (gradient.sel(alpha=dataset.alpha.max()) - gradient.sel(alpha=dataset.alpha.min())).mean(
            "beta", skipna=False
        ),
        "β": (gradient.sel(beta=dataset.beta.max()) - gradient.sel(beta=dataset.beta.min())).mean(
            "alpha", skipna=False
        ),
    }
    worst, spread, where = _worst(-rank_correlations(dataset))
    verdicts = [
        Verdict(
            claim="rank correlation of the outputs' condition number and gradient alignment over (α, β) (weakest)",
            effect=-worst,
            spread=spread,
            threshold=-0.5,
            side="below",
            sample=f"{where}: {draws} draws; spread: standard error over draws, one-sided 95 % (t)",
            margin=t,
        )
    ]
    for name, fall in falls.items():
        worst, spread, where = _worst(fall)
        verdicts.append(
            Verdict(
                claim=f"gradient alignment falls as {name} falls: from its largest to its smallest value (least)",
                effect=worst,
                spread=spread,
                threshold=0.0,
                side="above",
                sample=f"{where}: {draws} draws; spread: standard error over draws, one-sided 95 % (t)",
                margin=t,
            )
        )
    return verdicts


def _worst(values: xr.DataArray) -> tuple[float, float, str]:
    """Return the smallest mean over draws, its standard error, and of which activation and target it is."""
    runs = values.transpose("activation", "target", "draw").values
    mean = runs.mean(axis=-1)
    i, j = np.unravel_index(np.where(np.isnan(mean), -np.inf, mean).argmin(), mean.shape)
    error = runs[i, j].std(ddof=1) / np.sqrt(runs.shape[-1])
    return float(mean[i, j]), float(error), f"{LABELS[ACTIVATIONS[i]]}, {TARGETS[j]} targets"


def plot(dataset: xr.Dataset) -> Figure:
    """Draw gradient and weight alignment against the condition number, for every activation."""
    conditions = np.array(
        [[np.linalg.cond(covariance(float(a), float(b))) for b in dataset.beta] for a in dataset.alpha]
    )
    order = np.argsort(conditions.ravel())
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
                        conditions.ravel()[order], runs.mean(0), runs.std(0, ddof=1), ls=style, lw=1, marker="o",
                        ms=3.5, color=colour, markerfacecolor=face, label=f"{label}, {target}",
                    )  # fmt: skip
            axes.set(xscale="log", xlabel="condition number of the outputs", ylim=(0, 1.03))
            letter(axes, text, LABELS[activation])
        panels[0].set_ylabel("alignment at the end")
        panels[0].legend(loc="lower left", fontsize=7)
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows and over how many runs."""
    return (
        "Gradient and weight alignment, means over layers, of networks trained by DFA on two outputs of covariance "
        "[[1, α(1−β)], [α(1−β), α²]], against its condition number. Points: mean and standard deviation of "
        f"{dataset.sizes['draw']} draws at each of {dataset.sizes['alpha'] * dataset.sizes['beta']} pairs (α, β); "
        "filled: random targets, open: realisable ones."
    )
