r"""Between a locally connected net and a convolutional net: what sharing weights costs in alignment.

Less sharing never lowers the bound of weight alignment, since the kernels of fewer regions are among those of more; and
the bound of channelwise feedback does not depend on sharing. Both are laws (tests/laws); the figure shows them.

Setting: one convolutional net whose output maps are cut into r × r regions with a kernel each, from r = 1, the
convolution, to single positions, the locally connected net. All nets begin as the same function, with the same feedback
and the same connections; only sharing differs. Blocks of a 3 × 3 kernel with stride, batch-norm and ReLU; Adam, cosine
schedule.

Source: Refinetti et al. (2021) compare dense and convolutional nets in section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.convnets import SEED, ConvnetSetting, NetConfig, Training, recovery
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.relatives import with_relatives
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.panels import panels
from feedalign.style import FEEDBACK_COLOURS, FEEDBACK_LABELS, RULE_COLOURS, RULE_LABELS, figure_style

NAME = "sharing"
CLAIM = CLAIMS[NAME]
VARIANTS = ("backprop", "readout-only", "random", "channelwise")
LINES = ("-", "--", ":", "-.")  # layers, from the bottom


@dataclass(frozen=True, kw_only=True)
class Config(ConvnetSetting):
    """Everything that decides the result: besides `ConvnetSetting`, the nets and the number of seeds.

    Attributes:
        regions: numbers of regions along each axis; a layer with fewer positions has one region for each position.
        seeds: runs of each kind; they differ in initial weights, feedback and data order.
    """

    regions: tuple[int, ...]
    seeds: int


_DIGITS = Config(
    dataset="digits", net=NetConfig(0, (8, 16, 16), (1, 2, 2), epochs=4), regions=(1, 2, 4), batch_size=32, seeds=9
)
_CIFAR10 = Config(
    dataset="cifar10", train_images=5000, net=NetConfig(16, (16, 32, 32), (2, 2, 2), epochs=4), regions=(1, 2, 4),
    seeds=8,
)  # fmt: skip
ON_DATASET = with_relatives(
    {
        "digits": {"quick": _DIGITS, "paper": replace(_DIGITS, seeds=20)},
        "mnist": {
            "quick": replace(_CIFAR10, dataset="mnist"),
            "paper": replace(_CIFAR10, dataset="mnist", train_images=20_000),
        },
        "cifar10": {"quick": _CIFAR10, "paper": replace(_CIFAR10, train_images=20_000)},
    }
)
CONFIGS = {"quick": _DIGITS, "paper": ON_DATASET["cifar10"]["paper"]}


def jobs(config: Config) -> list[Training]:
    """Return the jobs, by number of regions, variant and seed."""
    return jobs_on_grid(Training, config, connected=config.regions, variant=VARIANTS, seed=range(config.seeds))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put numbers of regions, variants and seeds side by side."""
    return on_grid(results, regions=config.regions, variant=VARIANTS, seed=range(config.seeds))


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test what sharing does to gradient alignment and recovery under random feedback; nets of one seed are paired."""
    below = dataset.gradient_alignment.sel(variant="random", layer=dataset.layer[:-1]).mean("layer", skipna=False)
    recovered = recovery(dataset).sel(variant="random")
    aligned, gained = (values.isel(regions=-1) - values.isel(regions=0) for values in (below, recovered))
    return verdicts_on(SEED, {
        "random feedback: gradients of layers below align better without sharing: locally connected minus "
        "convolutional net, mean over layers": (aligned, "above", 0.0),
        "random feedback recovers more of backprop's gain without sharing: locally connected minus convolutional":
            (gained, "above", 0.0),
    })  # fmt: skip


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw bound, gradient alignment and accuracy over the number of regions."""
    regions = dataset.regions.values
    titles = ("how far weights could align", "how far gradients do", "accuracy beside its controls")
    figure, (left, middle, right) = panels(7.6, 3.5, titles)
    _draw_bounds(left, dataset)
    left.set(ylabel="alignability", ylim=(0, 1))
    _draw_gradients(middle, dataset)
    middle.set_ylabel("gradient alignment (cosine)")
    middle.axhline(0, color="0.8", lw=0.8, zorder=0)
    _draw_accuracies(right, dataset)
    right.set_ylabel("test accuracy")
    for axes in (left, middle, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(regions, [str(r) for r in regions])
        axes.set_xlabel("regions r per axis")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure


def _draw_bounds(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the alignability of every layer under random and channelwise feedback."""
    for variant in ("random", "channelwise"):
        for layer, style in zip(dataset.weight_layer.values, LINES, strict=False):
            bound = dataset.alignability.sel(variant=variant, weight_layer=layer).mean("seed")
            label = f"{FEEDBACK_LABELS[variant]}, layer {layer}"
            axes.plot(dataset.regions, bound, style, marker="o", ms=3, color=FEEDBACK_COLOURS[variant], label=label)


def _draw_gradients(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the gradient alignment of the layers below the top one under random and channelwise feedback."""
    for variant in ("random", "channelwise"):
        for layer, style in zip(dataset.layer.values[:-1], LINES, strict=False):
            values = dataset.gradient_alignment.sel(variant=variant, layer=layer)
            label = f"{FEEDBACK_LABELS[variant]}, layer {layer}"
            _mean_and_deviation(axes, values, ls=style, color=FEEDBACK_COLOURS[variant], label=label)


def _draw_accuracies(axes: Axes, dataset: xr.Dataset) -> None:
    labels = {**RULE_LABELS, "random": "DFA, random", "channelwise": "DFA, channelwise"}
    colours = {**RULE_COLOURS, **FEEDBACK_COLOURS}
    for variant in ("backprop", "random", "channelwise", "readout-only"):
        accuracy = dataset.test_accuracy.sel(variant=variant)
        _mean_and_deviation(axes, accuracy, color=colours[variant], label=labels[variant])


def _mean_and_deviation(axes: Axes, values: xr.DataArray, **line: Any) -> None:
    """Draw mean and standard deviation over seeds of values [regions, seed]."""
    mean, deviation = values.mean("seed"), values.std("seed", ddof=1)
    axes.errorbar(values.regions, mean, deviation, marker="o", ms=3, lw=1.2, **line)


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        "From a convolutional net (1 region) to a locally connected net; nets of one seed begin as the same function "
        "and have the same feedback. (a) Largest weight alignment that the layer's weights can reach, mean over seeds. "
        "(b) Gradient alignment of the layers below the top one, after training. (c) Test accuracy. b and c: mean and "
        f"standard deviation over {dataset.sizes['seed']} seeds."
    )
