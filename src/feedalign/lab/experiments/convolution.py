r"""Why convolutions align badly under DFA, and what structured and learned feedback add.

Setting: blocks of a 3 × 3 convolution with stride, batch-norm and ReLU, readout on all positions; Adam, cosine
schedule. Runs of one seed share initial weights and the order of the data, and all comparisons are paired over seeds.

* Nets that are connected differently begin as the same function and have the same feedback.
* Scattered feedback is channelwise feedback of which a share of the rows has changed places. This keeps architecture,
  data, initial weights and the entries, norm, rank and FᵀF of the feedback; a dense net could not tell.
* No variant sees forward weights, apart from backprop and, once, "weights".

Source: the question is from Refinetti et al. (2021), section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.convnets import (
    SEED,
    VARIANTS,
    Connected,
    ConvnetSetting,
    NetConfig,
    Training,
    recovery,
)
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.relatives import with_relatives
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.panels import panels
from feedalign.style import FEEDBACK_COLOURS, FEEDBACK_LABELS, RULE_COLOURS, figure_style

NAME = "convolution"
CLAIM = CLAIMS[NAME]

STRUCTURED = ("channelwise", "smooth", "optimal", "mask")  # not "weights", which has seen the forward weights
NETS: tuple[Connected, ...] = ("dense", "locally connected", "convolutional")
_SCATTERED, _CONNECTED = "scattered_", "connected_"  # what the variables of these runs begin with


@dataclass(frozen=True, kw_only=True)
class Config(ConvnetSetting):
    """Everything that decides the result: besides `ConvnetSetting`, how often the net is trained.

    Attributes:
        seeds: runs of each kind; they differ in initial weights, feedback and data order.
        shares: shares of the rows of channelwise feedback that change places.
        feedbacks: draws of channelwise feedback for each net; the rows of each change places.
        connected_seeds: seeds for which the nets with other connections are trained, under random feedback.
    """

    seeds: int
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    feedbacks: int = 3
    connected_seeds: int = 4


_DIGITS = Config(
    # Every pixel of the digits becomes four, so that the maps are still 4 × 4 after two strides of 2.
    dataset="digits", net=NetConfig(16, (8, 16, 16), (1, 2, 2), epochs=4), batch_size=32, seeds=12, feedbacks=4,
    shares=(0.0, 1.0),
)  # fmt: skip
_CIFAR10 = Config(dataset="cifar10", train_images=10_000, net=NetConfig(16, (16, 32, 32), (1, 2, 2), epochs=4), seeds=8)
_MNIST = replace(_CIFAR10, dataset="mnist", net=replace(_CIFAR10.net, image_size=14))
_QUICK: dict[str, Any] = {"train_images": 5000, "shares": (0.0, 1.0)}
ON_DATASET = with_relatives(
    {
        "digits": {"quick": _DIGITS, "paper": replace(_DIGITS, seeds=20, shares=_CIFAR10.shares)},
        "mnist": {"quick": replace(_MNIST, **_QUICK), "paper": _MNIST},
        "cifar10": {"quick": replace(_CIFAR10, **_QUICK), "paper": _CIFAR10},
    }
)
CONFIGS = {"quick": _DIGITS, "paper": _CIFAR10}


def _kinds(config: Config) -> list[Training]:
    """Return the jobs of the convolutional net, by variant and seed."""
    return jobs_on_grid(Training, config, connected=["convolutional"], variant=VARIANTS, seed=range(config.seeds))


def _moved(config: Config) -> list[Training]:
    """Return the jobs under scattered feedback, by draw of feedback, share and seed."""
    return jobs_on_grid(
        Training, config, connected=["convolutional"], variant=["channelwise"], feedback=range(config.feedbacks),
        scattered=config.shares, seed=range(config.seeds),
    )  # fmt: skip


def _otherwise_connected(config: Config) -> list[Training]:
    """Return the jobs of all nets under random feedback, by net and seed."""
    return jobs_on_grid(Training, config, connected=NETS, variant=["random"], seed=range(config.connected_seeds))


def jobs(config: Config) -> list[Training]:
    """Return the jobs of the convolutional net by all variants and under scattered feedback, and of the other nets."""
    # Some runs take part in two comparisons: under random feedback with other variants and with other nets, and under
    # channelwise feedback with other variants and with scattered feedback.
    return list(dict.fromkeys(_kinds(config) + _moved(config) + _otherwise_connected(config)))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the runs side by side: by variant, by share of moved rows, and by net."""
    found = dict(zip(jobs(config), results, strict=True))
    kinds, moved, connected = (
        [found[job] for job in group(config)] for group in (_kinds, _moved, _otherwise_connected)
    )
    seeds = range(config.seeds)
    by_variant = on_grid(kinds, variant=list(VARIANTS), seed=seeds)
    by_share = on_grid(moved, feedback=range(config.feedbacks), share=config.shares, seed=seeds)
    by_net = on_grid(connected, net=NETS, connected_seed=range(config.connected_seeds))
    parts = [by_variant, _named(by_share, _SCATTERED), _named(by_net, _CONNECTED)]
    return xr.merge(parts, join="exact", compat="no_conflicts")


def _named(measured: xr.Dataset, kind: str) -> xr.Dataset:
    return measured.rename({name: f"{kind}{name}" for name in measured.data_vars})


def _below(alignment: xr.DataArray) -> xr.DataArray:
    """Return the mean gradient alignment of the layers below the top one: those with shared weights above them."""
    return alignment.isel(layer=slice(-1)).mean("layer", skipna=False)


def _dose(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return mean log alignability and gradient alignment below the top, [feedback, share, seed]."""
    bounds: xr.DataArray = xr.apply_ufunc(np.log, dataset[f"{_SCATTERED}alignability"])
    return bounds.mean("weight_layer", skipna=False), _below(dataset[f"{_SCATTERED}gradient_alignment"])


def partial_correlation(dataset: xr.Dataset, *over: str) -> xr.DataArray:
    """Return the correlation of log alignability and gradient alignment when only the places of rows differ.

    The mean of every net and draw of feedback is taken out, so that what remains is what moving the rows has changed.

    Args:
        dataset: a result.
        *over: dimensions of the points: "share", "feedback", and "seed" for all nets together.
    """
    bounds, aligned = (values - values.mean("share", skipna=False) for values in _dose(dataset))
    correlation: xr.DataArray = xr.corr(bounds, aligned, over)
    return correlation.where(aligned.notnull().all(over))  # corr skips lost runs


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test what connections, scattering, structure and learning do; every comparison is paired over seeds."""
    connected = _below(dataset[f"{_CONNECTED}gradient_alignment"]).rename(connected_seed="seed")
    dense, local, shared = (connected.sel(net=net, drop=True) for net in NETS)
    aligned = _below(dataset.gradient_alignment)
    recovered = recovery(dataset)
    random, channelwise, mask, learned = ({"variant": name} for name in ("random", "channelwise", "mask", "learned"))
    fixed = recovered.sel(variant=list(STRUCTURED)).max("variant", skipna=False)
    return verdicts_on(SEED, {
        "sparse connections cost gradient alignment (random feedback: dense − locally connected)":
            (dense - local, "above", 0.0),
        "sharing costs more (random feedback: locally connected − convolutional)": (local - shared, "above", 0.0),
        "moving rows of channelwise feedback: correlation of log alignability and gradient alignment within one net "
        "and draw of feedback": (partial_correlation(dataset, "share", "feedback"), "above", 0.5),
        "structure raises gradient alignment (channelwise − random)":
            (aligned.sel(channelwise) - aligned.sel(random), "above", 0.0),
        "a high bound does not decide: recovery of random feedback − feedback from the connections":
            (recovered.sel(random) - recovered.sel(mask), "above", 0.0),
        "learned feedback recovers more than random feedback (difference of recovery)":
            (recovered.sel(learned) - recovered.sel(random), "above", 0.1),
        "learned feedback recovers more than the best fixed structure of the same seed":
            (recovered.sel(learned) - fixed, "above", 0.0),
    })  # fmt: skip


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw what connections, scattering and kinds of feedback do to alignment, and what each feedback recovers."""
    titles = (
        "connections, random feedback", "one net, rows of feedback moved", "one net, kinds of feedback",
        "what each feedback recovers",
    )  # fmt: skip
    figure, (top_left, top_right, bottom_left, bottom_right) = panels(8.6, 6.2, titles, rows=2, width_ratios=(1.4, 1))
    _draw_connections(top_left, dataset)
    _draw_scattered(top_right, dataset)
    _draw_kinds(bottom_left, dataset)
    _draw_recoveries(bottom_right, recovery(dataset))
    return figure


def _draw_connections(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the gradient alignment of every layer of the nets with all, local and shared connections."""
    places = np.arange(len(NETS))
    for layer, marker in zip(dataset.layer.values[:-1], "os^Dv", strict=False):
        values = dataset[f"{_CONNECTED}gradient_alignment"].sel(layer=layer).transpose("connected_seed", "net").values
        axes.plot(places, values.T, marker, ms=3, color=FEEDBACK_COLOURS["random"], alpha=0.5)
        axes.plot(places, values.mean(0), marker=marker, lw=1, color=FEEDBACK_COLOURS["random"], label=f"layer {layer}")
    axes.set_xticks(places, ["dense", "locally connected", "convolutional"])
    axes.set(xlabel="connections of the net", ylabel="gradient alignment (cosine)")
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.legend()


def _draw_scattered(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw gradient alignment against alignability: one line for each net and draw, one point for each share."""
    bounds, aligned = (values.stack(run=("seed", "feedback")) for values in _dose(dataset))
    axes.plot(np.exp(bounds), aligned, "-", lw=0.6, color=FEEDBACK_COLOURS["channelwise"], alpha=0.4)
    for share, alpha in zip(bounds.share.values, np.linspace(1, 0.3, bounds.sizes["share"]), strict=True):
        at = {"share": share}
        axes.plot(np.exp(bounds.sel(at)), aligned.sel(at), "o", ms=4, alpha=alpha,
                  color=FEEDBACK_COLOURS["channelwise"], label=f"{share:.0%}")  # fmt: skip
    _name_axes(axes, 1.0, 1.5, 2.0, 3.0, 5.0)
    axes.legend(title="rows moved")


def _draw_kinds(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw gradient alignment against alignability: one point for each seed and kind of fixed feedback."""
    bounds = np.exp(np.log(dataset.alignability).mean("weight_layer"))
    aligned = _below(dataset.gradient_alignment)
    shown = ["random", *STRUCTURED, "weights"]
    for variant in shown:
        at = {"variant": variant}
        axes.plot(bounds.sel(at), aligned.sel(at), "o", ms=4, color=FEEDBACK_COLOURS[variant], alpha=0.8,
                  label=FEEDBACK_LABELS[variant])  # fmt: skip
    _name_axes(axes, 1.0, 2.0, 5.0)
    axes.set_ylim(top=1.6 * float(aligned.sel(variant=shown).max()))  # room for the legend
    axes.legend(ncols=2, columnspacing=1.0, handlelength=1.0)


def _name_axes(axes: Axes, *ticks: float) -> None:
    """Name the axes of gradient alignment against alignability; less than a decade needs ticks within the decade."""
    axes.set(xscale="log", xlabel="alignability (mean over layers)", ylabel="gradient alignment (cosine)")
    axes.xaxis.set_major_locator(LogLocator(subs=ticks))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)


def _draw_recoveries(axes: Axes, recovered: xr.DataArray) -> None:
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
    backprop, readout = (float(accuracy.sel(variant=variant)) for variant in ("backprop", "readout-only"))
    together = float(partial_correlation(dataset, "share", "feedback", "seed"))
    points = _dose(dataset)[0].size
    return (
        "Gradient alignment after training, of the layers that have a convolution above them (b, c: their mean). (a) "
        "Nets that begin as the same function and have the same random feedback: all connections, local connections, "
        f"and local connections that share weights; {dataset.sizes['connected_seed']} runs each. (b) Channelwise "
        f"feedback, {dataset.sizes['feedback']} draws for each net; lines join the runs of one draw, of which a share "
        f"of the rows has changed places. Over the {points} nets × feedbacks, the partial correlation of log "
        f"alignability and gradient alignment, given net and draw, is {together:.2f}. (c) Kinds of feedback. (d) "
        "(accuracy − readout only) / (backprop − readout only); test accuracy of backprop "
        f"{backprop:.3f}, of the readout alone {readout:.3f}. b, c and d: {dataset.sizes['seed']} seeds."
    )
