r"""Why convolutions fail under DFA, and how far structured and learned feedback help.

Claim: under random feedback the gradients of layers below a convolution do not align, because the convolution's weights
cannot: most entries of its unrolled matrix are zero, and the others are tied. The alignability of a layer is the
largest weight alignment that its weights can reach. Feedback with a structure that convolutions can follow raises
alignability, and alignment with it. Feedback learned by a local rule recovers most of the loss.

Setting: blocks of a 3 × 3 convolution with stride, batch-norm and ReLU, readout on all positions; Adam, cosine
schedule. Three mechanisms are told apart by small nets that begin as the same function and have the same feedback: the
convolutional net, the locally connected net (the same connections, nothing shared) and the dense net (all connections).
What a variant recovers is measured on the larger convolutional net: (accuracy − readout only) / (backprop − readout
only). No variant sees forward weights, apart from backprop and, once, "weights".

Source: the question is from Refinetti et al. (2021), section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.convnets import (
    VARIANTS,
    Connected,
    ConvnetConfig,
    NetConfig,
    mean_over_seeds,
    measured_run,
    recovery,
)
from feedalign.lab.experiments.common.progress import Progress
from feedalign.lab.experiments.common.verdict import Verdict
from feedalign.style import FEEDBACK_COLOURS, FEEDBACK_LABELS, RULE_COLOURS, figure_style, letter, mean_and_range

NAME = "convolution"
CLAIM = CLAIMS[NAME]

STRUCTURED = ("channelwise", "smooth", "optimal", "mask")  # not "weights", which has seen the forward weights
LEARNED = ("learned", "learned, smooth")
_LARGE_ONLY = ("mask", "weights", *LEARNED)
SMALL: tuple[Connected, ...] = ("dense", "locally connected", "convolutional")
LARGER = "larger convolutional"


@dataclass(frozen=True, kw_only=True)
class Config(ConvnetConfig):
    """Everything that decides the result: besides `ConvnetConfig`, the nets.

    Attributes:
        small: the net of the three mechanisms; trained convolutional, locally connected and dense.
        large: the net on which recovery is measured.
    """

    small: NetConfig
    large: NetConfig


_DIGITS = Config(
    dataset="digits",
    small=NetConfig(0, (8, 16, 16), (1, 2, 2), epochs=6),
    large=NetConfig(0, (16, 32, 32), (1, 2, 2), epochs=6),
    batch_size=32,
)
_CIFAR10 = Config(
    dataset="cifar10",
    small=NetConfig(16, (16, 32, 32), (2, 2, 2), epochs=4),
    large=NetConfig(0, (32, 64, 64), (2, 2, 2), epochs=8),
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
    """Train the small nets by most variants and the larger net by all variants, and measure each net at the end."""
    nets: list[tuple[NetConfig, Connected, str]] = [(config.small, each, str(each)) for each in SMALL]
    nets.append((config.large, "convolutional", LARGER))
    jobs = [(*net, variant, seed) for net in nets for variant in VARIANTS for seed in range(config.seeds)]
    jobs = [job for job in jobs if job[2] == LARGER or job[3] not in _LARGE_ONLY]
    parts = []
    for i, (shape, connected, net, variant, seed) in enumerate(jobs):
        measured = measured_run(config, shape, connected, variant, config.first_seed + seed)
        parts.append(measured.expand_dims(net=[net], variant=[variant], seed=[seed]))
        progress(i + 1, len(jobs))
    return xr.merge(parts, join="outer", compat="no_conflicts").reindex(
        {"net": [*SMALL, LARGER], "variant": list(VARIANTS)}
    )


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the three mechanisms, what structure does, and what fixed and learned feedback recover."""
    aligned = dataset.gradient_alignment.sel(layer=dataset.layer[:-1]).mean("layer", skipna=False)
    bounds = np.log(dataset.alignability).mean("weight_layer", skipna=False)

    def on(values: xr.DataArray, net: str, variant: str) -> xr.DataArray:
        return values.sel(net=net, variant=variant, drop=True)

    return [
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
        *_recoveries(recovery(dataset).sel(net=LARGER)),
    ]


def _recoveries(recovered: xr.DataArray) -> list[Verdict]:
    """Test what the best fixed and the best learned feedback recover, [variant, seed]."""
    structure, learned = (_best(recovered, variants) for variants in (STRUCTURED, LEARNED))
    random = float(recovered.sel(variant="random").mean())
    claims = {
        structure: f"the best fixed structure, {FEEDBACK_LABELS[structure]}, recovers 0.6 of what backprop gains over "
        f"the readout alone (random feedback: {random:.2f})",
        learned: f"the best learned feedback, {FEEDBACK_LABELS[learned]}, recovers 0.85",
    }
    return [
        mean_over_seeds(claims[variant], recovered.sel(variant=variant, drop=True), threshold)
        for variant, threshold in ((structure, 0.6), (learned, 0.85))
    ]


def _best(recovered: xr.DataArray, variants: tuple[str, ...]) -> str:
    """Return the variant that recovers most on average."""
    return max(variants, key=lambda variant: float(recovered.sel(variant=variant).mean()))


def plot(dataset: xr.Dataset) -> Figure:
    """Draw the three mechanisms in bound and gradient alignment, and what each feedback recovers."""
    with figure_style():
        figure = Figure(figsize=(7.6, 5.6), layout="constrained")
        (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
        _draw_small(top_left, dataset.alignability.mean("weight_layer"))
        _draw_reached(top_left, abs(dataset.weight_alignment).mean(("weight_layer", "seed")))
        letter(top_left, "a", "how far weights could align")
        top_left.set(ylabel="alignability", ylim=(0, 1.05))
        top_left.legend(loc="center", bbox_to_anchor=(0.55, 0.76), ncols=2)
        _draw_small(top_right, dataset.isel(layer=slice(-1)).gradient_alignment.mean("layer"))
        letter(top_right, "b", "how far gradients do")
        top_right.set_ylabel("gradient alignment (cosine)")
        _draw_small(bottom_left, recovery(dataset))
        letter(bottom_left, "c", "what that is worth")
        bottom_left.set_ylabel("recovery")
        bottom_left.axhline(1, color=RULE_COLOURS["backprop"], lw=1, ls=":")
        _bars(bottom_right, recovery(dataset).sel(net=LARGER))
        letter(bottom_right, "d", "larger convolutional net")
    return figure


def _shifts() -> dict[str, float]:
    """Return where the points of each kind of feedback stand beside the tick of their net."""
    fixed = [variant for variant in FEEDBACK_COLOURS if variant not in _LARGE_ONLY]
    return dict(zip(fixed, 0.12 * (np.arange(len(fixed)) - (len(fixed) - 1) / 2), strict=True))


def _draw_small(axes: Axes, values: xr.DataArray) -> None:
    """Draw values [net, variant, seed] of the small nets."""
    places = np.arange(len(SMALL))
    for variant, shift in _shifts().items():
        samples = values.sel(net=list(SMALL), variant=variant).transpose("seed", "net").values
        style = {"marker": "o", "color": FEEDBACK_COLOURS[variant], "label": FEEDBACK_LABELS[variant]}
        mean_and_range(axes, places + shift, samples, **style)
    axes.set_xticks(places, ["dense", "locally\nconnected", "convolutional"])
    axes.set_xlabel("connections of the small net")
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)


def _draw_reached(axes: Axes, reached: xr.DataArray) -> None:
    """Draw the weight alignment [net, variant] that training reached, as dashes."""
    for variant, shift in _shifts().items():
        values = reached.sel(net=list(SMALL), variant=variant)
        axes.plot(np.arange(len(SMALL)) + shift, values, "_", color=FEEDBACK_COLOURS[variant], ms=7)


def _bars(axes: Axes, recovered: xr.DataArray) -> None:
    """Draw recovery [variant, seed]: the mean of every kind of feedback as a bar, every seed as a point."""
    variants = list(FEEDBACK_COLOURS)
    for row, variant in enumerate(variants):
        values = recovered.sel(variant=variant).values
        axes.barh(row, values.mean(), color=FEEDBACK_COLOURS[variant], height=0.7, alpha=0.8)
        axes.plot(values, np.full(len(values), row), "k.", ms=3)
    axes.axvline(0, color=RULE_COLOURS["readout-only"], lw=1)
    axes.axvline(1, color=RULE_COLOURS["backprop"], lw=1, ls=":")
    axes.set_yticks(range(len(variants)), [FEEDBACK_LABELS[variant] for variant in variants])
    axes.invert_yaxis()
    axes.set(xlabel="recovery: 0 readout only, 1 backprop", ylabel="feedback")


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, over how many runs, and the accuracies of the controls."""
    accuracy = dataset.test_accuracy.mean("seed")
    backprop, readout = accuracy.sel(variant="backprop"), accuracy.sel(variant="readout-only")
    controls = ", ".join(
        f"{net} {float(backprop.sel(net=net)):.3f} and {float(readout.sel(net=net)):.3f}" for net in dataset.net.values
    )
    return (
        "(a–c) Small nets that begin as the same function and learn through the same feedback matrices; from left to "
        "right connections are taken away, then shared. (a) Dots: largest weight alignment that any weights can reach; "
        "dashes: size of the weight alignment that training reached; means over the layers between two feedback "
        "points. (b) Gradient alignment of the layers below the top one, after training. (c, d) (accuracy − readout "
        "only) / (backprop − readout only); test accuracy of backprop and of the readout alone: "
        f"{controls}. Points in a–c: mean over {dataset.sizes['seed']} seeds, bars: their range. Dotted: backprop."
    )
