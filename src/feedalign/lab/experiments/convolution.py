r"""Why convolutions fail under DFA, how far feedback of a structure that fits them helps, and learned feedback further.

Claim: gradients of layers below a convolution do not align under random feedback, since its weights cannot: most of
their unrolled matrix is zero, and the rest tied. How far they can is the alignability of the layer, a bound no training
passes. Feedback of a structure that convolutions can follow raises it, and alignment with it; feedback learned by a
local rule recovers most of what is lost.

Setting: blocks of a 3 × 3 convolution with stride, batch-norm and ReLU, readout on all positions; Adam, cosine
schedule. Three mechanisms are told apart by small nets that begin as one function and have the same feedback: the
convolutional one, the locally connected one (the same connections, nothing shared) and the dense one (nothing absent).
What a rule recovers is measured on the larger convolutional net: (accuracy − readout only) / (backprop − readout only).
No rule sees forward weights.

Source: of the question Refinetti et al. (2021), section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.experiments.convnet_runs import (
    METHODS,
    Connected,
    Net,
    Settings,
    mean_over_seeds,
    measured_run,
    recovery,
)
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.style import FEEDBACK_COLOURS, FEEDBACK_LABELS, RULE_COLOURS, figure_style, letter

NAME = "convolution"
CLAIM = (
    "Convolutions fail under direct feedback alignment because their sparse, shared weights cannot align with random "
    "feedback; structured feedback raises the bound, and learned feedback recovers most of the loss."
)

STRUCTURED = ("channelwise", "smooth", "optimal", "mask")  # "weights" has seen the forward weights
LEARNED = ("learned", "learned, smooth")
_LARGE_ONLY = ("mask", "weights", *LEARNED)
SMALL: tuple[Connected, ...] = ("dense", "locally connected", "convolutional")
LARGER = "larger convolutional"


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Everything that decides the result: besides `Settings`, the nets.

    Attributes:
        small: the net of the three mechanisms, trained convolutional, locally connected and dense.
        large: the net of the recovery table.
    """

    small: Net
    large: Net


_DIGITS = Config(
    dataset="digits",
    small=Net(0, (8, 16, 16), (1, 2, 2), epochs=6),
    large=Net(0, (16, 32, 32), (1, 2, 2), epochs=6),
    batch_size=32,
)
_CIFAR10 = Config(
    dataset="cifar10",
    small=Net(16, (16, 32, 32), (2, 2, 2), epochs=4),
    large=Net(0, (32, 64, 64), (2, 2, 2), epochs=8),
)
_MNIST = replace(
    _CIFAR10, dataset="mnist", small=replace(_CIFAR10.small, image_size=14), large=replace(_CIFAR10.large, epochs=3)
)
ON_DATASET = {
    name: {"quick": quick, "paper": paper}
    for name, quick, paper in (
        ("digits", _DIGITS, replace(_DIGITS, seeds=10)),
        ("mnist", _MNIST, replace(_MNIST, seeds=5)),
        ("cifar10", replace(_CIFAR10, large=replace(_CIFAR10.large, epochs=4)), _CIFAR10),
    )
}
CONFIGS = {"quick": _DIGITS, "paper": _CIFAR10}


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Train every net by every method it is in the table for, and measure it at the end."""
    nets: list[tuple[Net, Connected, str]] = [(config.small, each, str(each)) for each in SMALL]
    nets.append((config.large, "convolutional", LARGER))
    jobs = [(*net, method, seed) for net in nets for method in METHODS for seed in range(config.seeds)]
    jobs = [job for job in jobs if job[2] == LARGER or job[3] not in _LARGE_ONLY]
    parts = []
    for i, (shape, connected, net, method, seed) in enumerate(jobs):
        measured = measured_run(config, shape, connected, method, config.first_seed + seed)
        parts.append(measured.expand_dims(net=[net], rule=[method], seed=[seed]))
        progress(i + 1, len(jobs))
    return xr.merge(parts, join="outer", compat="no_conflicts").reindex(
        {"net": [*SMALL, LARGER], "rule": list(METHODS)}
    )


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold the bound, the three mechanisms and the recovery against the data."""
    used = abs(dataset.weight_alignment) / dataset.alignability
    aligned = dataset.gradient_alignment.sel(layer=dataset.layer[:-1]).mean("layer", skipna=False)
    bounds = np.log(dataset.alignability).mean("weight_layer", skipna=False)
    recovered = recovery(dataset).sel(net=LARGER)
    structure, learned = (_best(recovered, methods) for methods in (STRUCTURED, LEARNED))
    random = recovered.sel(rule="random")
    runs = f"{dataset.sizes['seed']} seeds; spread: standard deviation over seeds"

    def on(values: xr.DataArray, net: str, method: str) -> xr.DataArray:
        return values.sel(net=net, rule=method, drop=True)

    return [
        Verdict(
            claim="weight alignment never exceeds the alignability of its layer (largest ratio)",
            effect=float(used.max()),
            spread=float(used.std()),
            threshold=1.0,
            side="below",
            sample=f"{int(used.notnull().sum())} layers of all nets, methods and seeds; spread: standard deviation",
        ),
        mean_over_seeds(
            "random feedback: gradients of layers below shared weights hardly align (larger net, mean over layers)",
            on(aligned, LARGER, "random"),
            0.1,
            "below",
        ),
        mean_over_seeds(
            "sparse connections lower the bound (random feedback: log of dense over locally connected)",
            on(bounds, "dense", "random") - on(bounds, "locally connected", "random"),
            0.0,
        ),
        mean_over_seeds(
            "sharing lowers it further (random feedback: log of locally connected over convolutional)",
            on(bounds, "locally connected", "random") - on(bounds, "convolutional", "random"),
            0.0,
        ),
        mean_over_seeds(
            "structure raises it (convolutional: log of channelwise over random)",
            on(bounds, "convolutional", "channelwise") - on(bounds, "convolutional", "random"),
            0.0,
        ),
        mean_over_seeds(
            "and the gradient alignment of layers below shared weights (larger net: channelwise minus random)",
            on(aligned, LARGER, "channelwise") - on(aligned, LARGER, "random"),
            0.0,
        ),
        Verdict(
            claim=f"the best fixed structure, {FEEDBACK_LABELS[structure]}, recovers 0.6 of what backprop gains over "
            f"the readout alone (random feedback: {float(random.mean()):.2f})",
            effect=float(recovered.sel(rule=structure).mean(skipna=False)),
            spread=float(recovered.sel(rule=structure).std(ddof=1, skipna=False)),
            threshold=0.6,
            side="above",
            sample=runs,
        ),
        Verdict(
            claim=f"the best learned feedback, {FEEDBACK_LABELS[learned]}, recovers 0.85",
            effect=float(recovered.sel(rule=learned).mean(skipna=False)),
            spread=float(recovered.sel(rule=learned).std(ddof=1, skipna=False)),
            threshold=0.85,
            side="above",
            sample=runs,
        ),
    ]


def _best(recovered: xr.DataArray, methods: tuple[str, ...]) -> str:
    return max(methods, key=lambda method: float(recovered.sel(rule=method).mean()))


def plot(dataset: xr.Dataset) -> Figure:
    """Draw the three mechanisms in bound and gradient alignment, and what each feedback recovers."""
    fixed = [method for method in FEEDBACK_COLOURS if method not in _LARGE_ONLY]
    shifts = dict(zip(fixed, 0.12 * (np.arange(len(fixed)) - (len(fixed) - 1) / 2), strict=True))
    below = dataset.isel(layer=slice(-1))
    with figure_style():
        figure = Figure(figsize=(7.6, 5.6), layout="constrained")
        (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
        for axes, values, text, title, label in (
            (top_left, dataset.alignability.mean("weight_layer"), "a", "how far weights could align", "alignability"),
            (
                top_right,
                below.gradient_alignment.mean("layer"),
                "b",
                "how far gradients do",
                "gradient alignment (cosine)",
            ),
            (bottom_left, recovery(dataset), "c", "what that is worth", "recovery"),
        ):
            for method, shift in shifts.items():
                _points(axes, values.sel(net=list(SMALL), rule=method), shift, method)
            axes.set_xticks(range(len(SMALL)), ["dense", "locally\nconnected", "convolutional"])
            axes.set(ylabel=label)
            axes.axhline(0, color="0.8", lw=0.8, zorder=0)
            letter(axes, text, title)
        reached = abs(dataset.weight_alignment).mean(("weight_layer", "seed")).sel(net=list(SMALL))
        for method, shift in shifts.items():
            of_method = reached.sel(rule=method)
            top_left.plot(np.arange(len(SMALL)) + shift, of_method, "_", color=FEEDBACK_COLOURS[method], ms=7)
        bottom_left.axhline(1, color=RULE_COLOURS["bp"], lw=1, ls=":")
        top_left.set_ylim(0, 1.05)
        top_left.legend(loc="center", bbox_to_anchor=(0.55, 0.76), ncols=2)
        _bars(bottom_right, recovery(dataset).sel(net=LARGER))
        letter(bottom_right, "d", "larger convolutional net")
    return figure


def _points(axes: Axes, values: xr.DataArray, shift: float, method: str) -> None:
    """Draw mean and range over seeds of values [net, seed]."""
    values = values.transpose("net", "seed")
    mean = values.mean("seed").values
    reach = np.abs(np.stack([values.min("seed"), values.max("seed")]) - mean)
    axes.errorbar(
        np.arange(len(mean)) + shift,
        mean,
        reach,
        fmt="o",
        ms=4,
        lw=1,
        color=FEEDBACK_COLOURS[method],
        label=FEEDBACK_LABELS[method],
    )


def _bars(axes: Axes, recovered: xr.DataArray) -> None:
    """Draw recovery [rule, seed] of every feedback as a bar, every seed as a point."""
    methods = list(FEEDBACK_COLOURS)
    for row, method in enumerate(methods):
        values = recovered.sel(rule=method).values
        axes.barh(row, values.mean(), color=FEEDBACK_COLOURS[method], height=0.7, alpha=0.8)
        axes.plot(values, np.full(len(values), row), "k.", ms=3)
    axes.axvline(0, color=RULE_COLOURS["readout"], lw=1)
    axes.axvline(1, color=RULE_COLOURS["bp"], lw=1, ls=":")
    axes.set_yticks(range(len(methods)), [FEEDBACK_LABELS[method] for method in methods])
    axes.invert_yaxis()
    axes.set(xlabel="recovery: 0 readout only, 1 backprop")


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, over how many runs, and the accuracies behind it."""
    accuracy = dataset.test_accuracy.mean("seed")
    controls = ", ".join(
        f"{net} {float(accuracy.sel(net=net, rule='bp')):.3f} and {float(accuracy.sel(net=net, rule='readout')):.3f}"
        for net in dataset.net.values
    )
    return (
        "(a–c) Small nets that begin as one function and learn through the same feedback matrices; from left to right "
        "connections are taken away, then shared. (a) Dots: largest weight alignment any weights can reach, dashes: "
        "what training reached (its size); means over the layers between points. (b) Gradient alignment of the layers "
        "below the top one, after training. (c, d) (accuracy − readout only) / (backprop − readout only); "
        "test accuracy of backprop and of the readout alone: "
        f"{controls}. Points in a–c: mean over {dataset.sizes['seed']} seeds, bars: their range. Dotted: backprop."
    )
