r"""Does over-parametrisation help alignment? It does where the weights start small, and not from PyTorch's weights.

A likely reason, which nothing here tests by itself: the initial weights know nothing of the feedback, and a wide
network fits the data by a small change of many weights. A wide network also needs its hidden layers less, under any
rule.

Setting: ensembles of tanh networks with two hidden layers of equal width and without biases, SGD on the summed
cross-entropy in batches of 32, feedback uniform on ±1/√features, so that the columns of a feedback matrix have the same
length at every width. The learning rate is the same at every width.

Thresholds were fixed before the judging run (settings were chosen at first seeds of 1 000 000 and above): every trend
is a slope over the base-2 logarithm of the width, by least squares within a draw, and must differ from zero.

Source: Refinetti et al. (2021) ask this of shallow networks, as does the experiment `overparametrisation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.ensemble_training import EnsembleSetting, EnsembleTraining
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.relatives import with_relatives
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style

NAME = "width"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(EnsembleSetting):
    """Everything that decides the result.

    Attributes:
        widths: of the hidden layers, the smallest first.
        layers: number of hidden layers.
        init_scales: scales of the initial weights, relative to PyTorch's; 1 and a smaller one.
        activation: activation of the hidden layers.
        lr: learning rate for the loss summed over the batch.
        draws: number of sets of feedback and initial weights.
    """

    widths: tuple[int, ...] = (16, 64, 256)
    layers: int = 2
    init_scales: tuple[float, ...] = (1.0, 0.1)
    activation: Literal["tanh", "relu", "linear"] = "tanh"
    lr: float = 2e-3
    draws: int


_DIGITS = Config(dataset="digits", epochs=20, networks=2, draws=4, measurements=4, probe=300)
_PAPER = Config(
    dataset="mnist", image_size=14, widths=(16, 32, 64, 128, 256, 512), lr=1e-3, epochs=20, networks=5, draws=5,
    measurements=12,
)  # fmt: skip

ON_DATASET = with_relatives(
    {
        "digits": {"quick": _DIGITS, "paper": replace(_PAPER, dataset="digits", image_size=0, lr=2e-3, epochs=60)},
        "mnist": {"quick": replace(_DIGITS, dataset="mnist", image_size=14, epochs=1), "paper": _PAPER},
        "cifar10": {
            "quick": replace(_DIGITS, dataset="cifar10", image_size=14, lr=1e-3, epochs=2),
            "paper": replace(_PAPER, dataset="cifar10", lr=5e-4, epochs=40),
        },
    }
)
CONFIGS = {"quick": _DIGITS, "paper": _PAPER}

RULES = ("dfa", "backprop", "readout-only")
STYLES = ("-", "--", ":")  # of the scales of the initial weights


def jobs(config: Config) -> list[EnsembleTraining]:
    """Return a job for every rule, scale of the initial weights, width and draw."""
    hidden = [(width,) * config.layers for width in config.widths]
    draws = range(config.draws)
    return jobs_on_grid(EnsembleTraining, config, rule=RULES, init_scale=config.init_scales, hidden=hidden, draw=draws)


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put rules, scales of the initial weights, widths and draws side by side."""
    variables = ["gradient_alignment", "weight_alignment", "overlap", "train_accuracy", "test_accuracy"]
    draws = range(config.draws)
    return on_grid(results, rule=RULES, init_scale=config.init_scales, width=config.widths, draw=draws)[variables]


def slopes(values: xr.DataArray) -> xr.DataArray:
    """Return by how much values [..., width] rise when the width doubles, by least squares."""
    doublings = xr.apply_ufunc(np.log2, values.width.astype(float))
    centred = doublings - doublings.mean()
    slope: xr.DataArray = (values * centred).sum("width", skipna=False) / (centred**2).sum()
    return slope


def at_end(values: xr.DataArray) -> xr.DataArray:
    """Return the values after training, the mean over layers, networks and pairs of networks."""
    within = [dim for dim in ("layer", "weight_layer", "network", "pair") if dim in values.dims]
    return values.isel(epoch=-1, drop=True).mean(within, skipna=False)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test how alignment, overlap and what DFA gains change with the width."""
    small = float(dataset.init_scale.min())
    aligned, overlap = (at_end(dataset[name].sel(rule="dfa")) for name in ("gradient_alignment", "overlap"))
    accuracy = at_end(dataset.test_accuracy).sel(init_scale=1.0)
    gain = accuracy.sel(rule="dfa", drop=True) - accuracy.sel(rule="readout-only", drop=True)
    sample = f"a draw of feedback and initial weights; means over {dataset.sizes['network']} networks, and over layers"
    widths = f"widths {', '.join(str(width) for width in dataset.width.values)}"
    return verdicts_on(sample, {
        f"initial weights at {small:g} of PyTorch's: wider networks end with better aligned gradients ({widths}): "
        "slope for a doubling of the width": (slopes(aligned.sel(init_scale=small)), "above", 0.0),
        "PyTorch's initial weights: wider networks end with worse aligned gradients: slope for a doubling":
            (slopes(aligned.sel(init_scale=1.0)), "below", 0.0),
        "PyTorch's initial weights: the runs of a draw end less alike in wider networks: slope of the cross-seed "
        "overlap for a doubling": (slopes(overlap.sel(init_scale=1.0)), "below", 0.0),
        "PyTorch's initial weights: DFA gains less over training the readout alone in wider networks: slope of the "
        "difference of test accuracies for a doubling": (slopes(gain), "below", 0.0),
    })  # fmt: skip


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw gradient alignment, weight alignment, overlap and accuracy against the width."""
    shown = {
        "gradient_alignment": "gradient alignment (cosine)",
        "weight_alignment": "weight alignment (cosine)",
        "overlap": "cross-seed overlap (cosine)",
        "test_accuracy": "test accuracy",
    }
    figure, every = panels(10.4, 2.8, ("gradients", "weights", "seeds", "accuracy"))
    for axes, (name, axis) in zip(every, shown.items(), strict=True):
        values, of_accuracy = at_end(dataset[name]), name == "test_accuracy"
        for scale, style in zip(dataset.init_scale.values, STYLES, strict=False):
            for rule in RULES if of_accuracy else RULES[:1]:
                of = values.sel(rule=rule, init_scale=scale)
                label = RULE_LABELS[rule] if of_accuracy else f"initial weights × {scale:g}"
                axes.errorbar(
                    of.width, of.mean("draw"), of.std("draw"), color=RULE_COLOURS[rule], ls=style, marker="o", ms=3,
                    capsize=2, label=label if style == "-" or not of_accuracy else None,
                )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set(xlabel="width", ylabel=axis, ylim=(0, 1.02))
        axes.legend()
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        "Networks with hidden layers of equal width after training, from initial weights of several scales relative to "
        "PyTorch's (line styles). (a) to (c): DFA. Cosines are means over layers. Overlap: mean cosine of all weights "
        f"over pairs of networks of one draw. Means over {dataset.sizes['draw']} draws of feedback and initial weights "
        f"× {dataset.sizes['network']} networks; bars: one standard deviation over draws."
    )
