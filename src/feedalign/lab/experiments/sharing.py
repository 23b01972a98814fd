r"""Between a locally connected net and a convolutional one: what sharing weights costs in alignment.

Claim: the more positions share a kernel, the less the weights of a layer can align with random feedback, and the less
the gradients below it do. Feedback that is constant over positions has a bound that sharing does not lower.

Setting: one convolutional net whose output maps are cut into r × r regions with a kernel each, from r = 1, the
convolution, to single positions, the locally connected net. All begin as one function, with the same feedback and the
same connections; only sharing differs. Blocks of a 3 × 3 kernel with stride, batch-norm and ReLU; Adam, cosine
schedule.

Source: Refinetti et al. (2021), section 5, compare dense and convolutional nets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from feedalign.lab.experiments.convnet_runs import Net, Settings, mean_over_seeds, measured_run, recovery
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.style import FEEDBACK_COLOURS, FEEDBACK_LABELS, RULE_COLOURS, figure_style, letter

NAME = "sharing"
CLAIM = (
    "The more positions share a kernel, the less weights can align with random feedback, and the less gradients do; "
    "feedback that is constant over positions takes that cost from the bound."
)
METHODS = ("bp", "readout", "random", "channelwise")


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Everything that decides the result: besides `Settings`, the nets.

    Attributes:
        net: the convolutional one.
        regions: along each axis; a layer with fewer positions has one for each.
    """

    net: Net
    regions: tuple[int, ...]


_DIGITS = Config(
    dataset="digits", net=Net(0, (8, 16, 16), (1, 2, 2), epochs=4), regions=(1, 2, 4), batch_size=32, seeds=5
)
_CIFAR10 = Config(dataset="cifar10", net=Net(16, (16, 32, 32), (2, 2, 2), epochs=4), regions=(1, 2, 4, 8))
ON_DATASET = {
    "digits": {"quick": _DIGITS, "paper": replace(_DIGITS, seeds=10, regions=(1, 2, 4, 8))},
    "mnist": {"quick": replace(_CIFAR10, dataset="mnist"), "paper": replace(_CIFAR10, dataset="mnist", seeds=5)},
    "cifar10": {"quick": _CIFAR10, "paper": replace(_CIFAR10, seeds=5)},
}
CONFIGS = {"quick": _DIGITS, "paper": ON_DATASET["cifar10"]["paper"]}


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Train every net by every method, and measure it at the end."""
    jobs = [(r, method, seed) for r in config.regions for method in METHODS for seed in range(config.seeds)]
    parts = []
    for i, (regions, method, seed) in enumerate(jobs):
        measured = measured_run(config, config.net, regions, method, config.first_seed + seed)
        parts.append(measured.expand_dims(regions=[regions], rule=[method], seed=[seed]))
        progress(i + 1, len(jobs))
    return xr.merge(parts, join="outer", compat="no_conflicts").reindex({"rule": list(METHODS)})


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold bound, gradient alignment and recovery against sharing."""
    below = dataset.gradient_alignment.sel(layer=dataset.layer[:-1]).mean("layer", skipna=False)
    random, channelwise = (dataset.sel(rule=method, drop=True) for method in ("random", "channelwise"))
    # A layer whose positions are all alone already does not change any more.
    steps = np.log(random.alignability).diff("regions").max("weight_layer", skipna=False).min("regions", skipna=False)
    spread = channelwise.alignability.max("regions") - channelwise.alignability.min("regions")

    def gain(values: xr.DataArray) -> xr.DataArray:
        """Return what the locally connected net has more than the convolutional one, under random feedback."""
        values = values.sel(rule="random", drop=True)
        return values.isel(regions=-1, drop=True) - values.isel(regions=0, drop=True)

    return [
        mean_over_seeds(
            "random feedback: less sharing raises the bound at every step (smallest log ratio)", steps, 0.0
        ),
        mean_over_seeds(
            "channelwise feedback: sharing does not matter for the bound (largest difference)",
            spread.max("weight_layer", skipna=False),
            1e-6,
            "below",
        ),
        mean_over_seeds(
            "random feedback: gradients of layers below align better without sharing (difference of means over layers)",
            gain(below),
            0.0,
        ),
        mean_over_seeds("random feedback recovers more without sharing", gain(recovery(dataset)), 0.0),
    ]


def plot(dataset: xr.Dataset) -> Figure:
    """Draw bound, weight and gradient alignment, and accuracy, over the number of regions."""
    regions = dataset.regions.values
    with figure_style():
        figure = Figure(figsize=(7.6, 3.5), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for method in ("random", "channelwise"):
            colour, of_method = FEEDBACK_COLOURS[method], dataset.sel(rule=method)
            for layer, style in zip(dataset.weight_layer.values, ("-", "--", ":", "-."), strict=False):
                bound = of_method.alignability.sel(weight_layer=layer).mean("seed")
                label = f"{FEEDBACK_LABELS[method]}, layer {layer}"
                left.plot(regions, bound, style, marker="o", ms=3, color=colour, label=label)
            for layer, style in zip(dataset.layer.values[:-1], ("-", "--", ":", "-."), strict=False):
                values = of_method.gradient_alignment.sel(layer=layer)
                mean, std = values.mean("seed"), values.std("seed", ddof=1)
                label = f"{FEEDBACK_LABELS[method]}, layer {layer}"
                middle.errorbar(regions, mean, std, ls=style, marker="o", ms=3, lw=1.2, color=colour, label=label)
        for method, colour, label in (
            ("bp", RULE_COLOURS["bp"], "backprop"),
            ("random", FEEDBACK_COLOURS["random"], "DFA, random"),
            ("channelwise", FEEDBACK_COLOURS["channelwise"], "DFA, channelwise"),
            ("readout", RULE_COLOURS["readout"], "readout only"),
        ):
            accuracy = dataset.test_accuracy.sel(rule=method)
            spread = accuracy.std("seed", ddof=1)
            right.errorbar(regions, accuracy.mean("seed"), spread, marker="o", ms=3, lw=1.2, color=colour, label=label)
        for axes, text, title, label in (
            (left, "a", "how far weights could align", "alignability"),
            (middle, "b", "how far gradients do", "gradient alignment (cosine)"),
            (right, "c", "accuracy beside its controls", "test accuracy"),
        ):
            axes.set_xscale("log", base=2)
            axes.set_xticks(regions, [str(r) for r in regions])
            axes.set(xlabel="regions r per axis", ylabel=label)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
            letter(axes, text, title)
        left.set_ylim(0, 1)
        middle.axhline(0, color="0.8", lw=0.8, zorder=0)
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows and over how many runs."""
    return (
        "From a convolutional net (1 region) to a locally connected one; nets of one seed begin as one function and "
        "have one feedback. (a) Largest weight alignment the layer's weights can reach. (b) Gradient alignment of the "
        f"layers below the top one, after training. Mean and standard deviation over {dataset.sizes['seed']} seeds."
    )
