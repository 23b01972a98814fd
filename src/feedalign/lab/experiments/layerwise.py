r"""Deep networks align layer by layer, from the bottom, and runs from different seeds end at related weights.

The order of the layers is measured without a threshold, and once with one. Overlap is the mark of any fixed bias in the
updates, of which feedback is one: overlap alone does not show alignment. Training the readout alone is the control that
shows what the hidden layers contribute.

Setting: an ensemble of tanh (CIFAR-10: ReLU) networks without biases, SGD on the summed cross-entropy in batches of 32,
feedback uniform on ±1/√features, standardised inputs. The runs of one draw share their feedback; they differ in initial
weights and data order only.

Source: Refinetti et al. (2021), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.curves import log_onset
from feedalign.lab.experiments.common.ensemble_training import EnsembleSetting, EnsembleTraining
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.recovery import recovered
from feedalign.lab.experiments.common.relatives import with_relatives
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, band, figure_style, layer_colours

NAME = "layerwise"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(EnsembleSetting):
    """Everything that decides the result.

    Attributes:
        hidden: widths of the hidden layers.
        activation: activation of the hidden layers.
        init_scale: the initial weights are PyTorch's (uniform on ±1/√fan_in) times this number.
        lr: learning rate for the loss summed over the batch.
        label_noise: share of the training labels that is drawn at random.
        draws: number of sets of feedback matrices; each has initial weights of its own, the same for all rules.
    """

    hidden: tuple[int, ...] = (64, 64, 64)
    activation: Literal["tanh", "relu", "linear"] = "tanh"
    init_scale: float = 1.0
    lr: float = 1e-3
    label_noise: float = 0.0
    draws: int


_DIGITS = Config(dataset="digits", epochs=60, networks=5, draws=8)
_MNIST = Config(dataset="mnist", image_size=14, epochs=3, networks=5, draws=8)
# With init_scale=1 the cross-seed overlap on CIFAR-10 ends at 0.23: the initial weights differ between networks and are
# as large as what is learned. A learning rate that is large enough to change this diverges.
_CIFAR10 = Config(
    dataset="cifar10", image_size=14, hidden=(100, 100, 100, 100), activation="relu", lr=2e-4, epochs=20,
    label_noise=0.1, networks=4, draws=4, init_scale=0.7,
)  # fmt: skip

ON_DATASET = with_relatives(
    {
        "digits": {"quick": _DIGITS, "paper": replace(_DIGITS, epochs=400, networks=10, draws=6)},
        "mnist": {"quick": _MNIST, "paper": replace(_MNIST, epochs=10, networks=10, draws=6)},
        "cifar10": {"quick": _CIFAR10, "paper": replace(_CIFAR10, epochs=37, networks=6, draws=4)},
    }
)
CONFIGS = {"quick": ON_DATASET["digits"]["quick"], "paper": ON_DATASET["mnist"]["paper"]}

# A layer has begun to align when its gradient alignment passes this value. The alignment of untrained networks of this
# size scatters by about 0.05 around zero, and ends above 0.4 in every layer.
ONSET = 0.2
RULES = ("dfa", "backprop", "readout-only")
VARIABLES = ("gradient_alignment", "weight_alignment", "overlap", "train_accuracy", "test_accuracy", "finite_steps")


def jobs(config: Config) -> list[EnsembleTraining]:
    """Return a job for every draw under every rule."""
    return jobs_on_grid(EnsembleTraining, config, rule=RULES, draw=range(config.draws))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put rules and draws side by side."""
    return on_grid(results, rule=RULES, draw=range(config.draws))[list(VARIABLES)]


def delays(dataset: xr.Dataset) -> xr.DataArray:
    """Return the mean logarithm of the epoch at which DFA's gradient alignment is gained, [draw, network, layer].

    Each gain of the curve counts with its size, each loss with minus its size: Σ Δa log t / Σ Δa. No threshold takes
    part, and a curve multiplied by any number has the same delay. NaN where nothing is gained from start to end.
    """
    curves = dataset.gradient_alignment.sel(rule="dfa").isel(epoch=slice(1, None))
    times = np.log(curves.epoch)
    middles = xr.DataArray((times.values[1:] + times.values[:-1]) / 2, dims="epoch")
    gains = curves.diff("epoch").drop_vars("epoch")
    gained = gains.sum("epoch", skipna=False)
    centre: xr.DataArray = (gains * middles).sum("epoch", skipna=False) / gained.where(gained > 0)
    return centre


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the order of the layers, the cross-seed overlap, and what the hidden layers contribute."""
    return [*_order_of_layers(dataset), *_overlaps(dataset), _contribution(dataset)]


def _sample(dataset: xr.Dataset) -> str:
    return f"a draw of feedback and initial weights; mean over {dataset.sizes['network']} networks"


def _order_of_layers(dataset: xr.Dataset) -> list[Verdict]:
    """Compare neighbouring layers by their delay, and the first layer with the others by its onset."""
    delay = delays(dataset).mean("network", skipna=False)
    # A run without an onset is not left out: it makes the verdict not a number, and so not supported.
    level = xr.DataArray(ONSET)  # a plain number would be rounded to the precision of the curves
    log_times = log_onset(dataset.gradient_alignment.sel(rule="dfa"), level).mean("network", skipna=False)
    first, others = log_times.sel(layer=1), log_times.sel(layer=dataset.layer[1:]).min("layer", skipna=False)
    epochs = ", ".join(f"{time:.3g}" for time in np.exp(log_times.mean("draw").values))
    return verdicts_on(_sample(dataset), {
        **{
            f"layer {lower} gains its gradient alignment before layer {lower + 1}: difference of the mean logarithms "
            "of the epoch": (delay.sel(layer=lower + 1) - delay.sel(layer=lower), "above", 0.0)
            for lower in dataset.layer.values[:-1]
        },
        f"layer 1 is the first to reach a gradient alignment of {ONSET} (mean epochs {epochs}): logarithm of the "
        "ratio": (others - first, "above", 0.0),
    })  # fmt: skip


def _overlaps(dataset: xr.Dataset) -> list[Verdict]:
    """Test whether runs that share their feedback end at related weights, beside backprop from the same starts."""
    dfa, backprop = (
        dataset.overlap.isel(epoch=-1).sel(rule=rule).mean("pair", skipna=False) for rule in ("dfa", "backprop")
    )
    sample = f"a draw of feedback and initial weights; mean over {dataset.sizes['pair']} pairs of networks"
    return verdicts_on(sample, {
        "DFA: the cross-seed overlap of networks that share their feedback": (dfa, "above", 0.3),
        "this overlap minus that of the same initial weights under backprop": (dfa - backprop, "above", 0.3),
    })  # fmt: skip


def _contribution(dataset: xr.Dataset) -> Verdict:
    """Compare test accuracies: how much of backprop's gain over the readout alone DFA reaches."""
    accuracy = dataset.test_accuracy.isel(epoch=-1).mean("network", skipna=False)
    dfa, backprop, readout = (accuracy.sel(rule=rule, drop=True) for rule in RULES)
    means = f"{float(dfa.mean()):.3f} of {float(backprop.mean()):.3f}, readout only {float(readout.mean()):.3f}"
    return Verdict.of_mean(
        "DFA's hidden layers recover more than half of what backprop gains over training the readout alone (test "
        f"accuracy {means})",
        recovered(dfa, readout, backprop),
        0.5,
        sample=f"{_sample(dataset)}, with all rules from the same initial weights",
    )


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw gradient and weight alignment by layer, cross-seed overlap and accuracy, over epochs."""
    after = dataset.isel(epoch=slice(1, None))
    labels = {
        "gradients align from the bottom": "gradient alignment (cosine)",
        "weights follow the feedback": "weight alignment (cosine)",
        "seeds move towards one solution": "cross-seed overlap (cosine)",
        "accuracy beside its controls": "test accuracy",
    }
    figure, every = panels(7.2, 5.2, list(labels), rows=2)
    _draw_layers(every[0], after.gradient_alignment, "layer")
    _draw_layers(every[1], after.weight_alignment, "weight_layer")
    _draw_rules(every[2], after.overlap.mean("pair"))
    _draw_rules(every[3], after.test_accuracy)
    for axes, label in zip(every, labels.values(), strict=True):
        axes.set(xscale="log", xlabel="epochs", ylabel=label)
        axes.legend()
    return figure


def _samples(values: xr.DataArray) -> NDArray[Any]:
    """Return values with a row for every run, [runs, epochs]."""
    return values.transpose(..., "epoch").values.reshape(-1, values.sizes["epoch"])


def _draw_layers(axes: Axes, values: xr.DataArray, dim: str) -> None:
    """Draw every layer of `dim` under DFA as a line with a band, under backprop as a dotted line."""
    epochs = values.epoch.values
    for layer, colour in zip(values[dim].values, layer_colours(values.sizes[dim]), strict=True):
        of_layer = values.sel({dim: layer})
        band(axes, epochs, _samples(of_layer.sel(rule="dfa")), color=colour, label=f"layer {layer}")
        axes.plot(epochs, of_layer.sel(rule="backprop").mean(("draw", "network")), color=colour, lw=1, ls=":")
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)


def _draw_rules(axes: Axes, values: xr.DataArray) -> None:
    for rule in RULES:
        samples = _samples(values.sel(rule=rule))
        band(axes, values.epoch.values, samples, color=RULE_COLOURS[rule], label=RULE_LABELS[rule])


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        f"Solid: mean under DFA over {dataset.sizes['draw']} feedback draws × {dataset.sizes['network']} networks, "
        "band: one standard deviation. Dotted lines in a and b: the same cosines in "
        f"{dataset.sizes['network']} networks trained with backprop, which does not use the feedback. Overlap: mean "
        f"cosine of all weights over {dataset.sizes['pair']} pairs of networks of one draw."
    )
