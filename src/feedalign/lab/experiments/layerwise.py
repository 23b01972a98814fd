r"""Deep networks align layer by layer, from the bottom, and runs from different seeds end at related weights.

Claim: under DFA the gradient alignment of each hidden layer rises, the first layer's first; out of all solutions the
rule favours one whatever the initial weights and the order of the data (cross-seed overlap), as theory's
degeneracy breaking says. Backprop, on the same networks, aligns with nothing and picks another solution each time. The
control, training the readout alone, says what the hidden layers are worth.

Setting: an ensemble of tanh (CIFAR-10: ReLU) networks without biases, SGD on the summed cross-entropy in batches of 32,
feedback uniform on ±1/√features, inputs standardised. The runs of one draw share their feedback and differ in
initialisation and data order only.

Source: Refinetti et al. (2021), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional

from feedalign.alignment import cross_seed_overlap, gradient_alignment, onset, weight_alignment
from feedalign.feedback import Uniform
from feedalign.lab.data import label_noise, load, prepare
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.lab.training import one_thread, steps_per_epoch, train
from feedalign.networks import EnsembleMLP
from feedalign.rules import DFA, Backprop, DirectRule, ReadoutOnly
from feedalign.style import RULE_COLOURS, RULE_LABELS, band, figure_style, layer_colours, letter

NAME = "layerwise"
CLAIM = (
    "Deep networks trained with direct feedback alignment align layer by layer from the bottom, and runs from "
    "different seeds end at related weights; backprop's do neither."
)


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        dataset: "digits", "mnist" or "cifar10".
        image_size: images are averaged down to this height and width; 0 keeps them.
        hidden: widths of the hidden layers.
        activation: of the hidden layers.
        lr: learning rate; the loss is summed over the batch.
        batch_size: samples a step.
        epochs: passes through the data.
        label_noise: part of the training labels that is drawn at random.
        networks: runs per draw of the feedback, differing in initialisation and data order.
        draws: feedback matrices; backprop and the control never see them and run for the first one only.
        init_scale: the initial weights are PyTorch's (uniform on ±1/√fan_in) times this.
        measurements: number of times, log-spaced after time 0.
        probe: training images that alignment is measured on.
        first_seed: all seeds are derived from it.
    """

    dataset: str
    image_size: int
    hidden: tuple[int, ...]
    activation: str
    lr: float
    batch_size: int
    epochs: int
    label_noise: float
    networks: int
    draws: int
    init_scale: float = 1.0
    measurements: int = 24
    probe: int = 500
    first_seed: int = 0


_DIGITS = Config("digits", 0, (64, 64, 64), "tanh", 1e-3, 32, 60, 0.0, networks=5, draws=6)
_MNIST = Config("mnist", 14, (64, 64, 64), "tanh", 1e-3, 32, 3, 0.0, networks=5, draws=8)
# From full-size weights the cross-seed overlap on CIFAR-10 ends at 0.23: the initial weights, of which every network
# has its own, are as long as what is learned, and a learning rate that would change this diverges.
_CIFAR10 = Config("cifar10", 14, (100, 100, 100, 100), "relu", 2e-4, 32, 20, 0.1, networks=4, draws=4, init_scale=0.7)

ON_DATASET = {
    "digits": {"quick": _DIGITS, "paper": replace(_DIGITS, epochs=400, networks=10, draws=6)},
    "mnist": {"quick": _MNIST, "paper": replace(_MNIST, epochs=10, networks=10, draws=6)},
    "cifar10": {"quick": _CIFAR10, "paper": replace(_CIFAR10, epochs=37, networks=6, draws=4)},
}
CONFIGS = {"quick": ON_DATASET["digits"]["quick"], "paper": ON_DATASET["mnist"]["paper"]}

# Alignment of untrained networks of this size scatters by about 0.05 around zero and ends above 0.4 in every layer.
ONSET = 0.2

_RULES: dict[str, type[DirectRule]] = {"dfa": DFA, "bp": Backprop, "readout": ReadoutOnly}


def summed_cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy summed over networks and batch: output [E, B, C], labels [E, B]."""
    return functional.cross_entropy(output.flatten(0, 1), labels.flatten(), reduction="sum")


class _Task(NamedTuple):
    """The images and labels of a run: inputs [n, d], labels [n], those of the training set with noise."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int


def _task(config: Config) -> _Task:
    data = load(config.dataset)
    train_x, test_x = prepare(data, config.image_size or None)
    generator = torch.Generator().manual_seed(config.first_seed)
    train_y, _ = label_noise(data.train_labels, config.label_noise, data.classes, generator)
    return _Task(train_x, train_y, test_x, data.test_labels, data.classes)


@one_thread()
def run(config: Config, progress: Progress) -> xr.Dataset:
    """Train the ensemble under every rule and measure it along the way."""
    task = _task(config)
    per_epoch = steps_per_epoch(len(task.train_x), config.batch_size)
    last = per_epoch * config.epochs
    steps = sorted({0, *np.rint(np.geomspace(max(1, last / 1000), last, config.measurements)).astype(int).tolist()})
    jobs = [(rule, draw) for rule in _RULES for draw in range(config.draws if rule == "dfa" else 1)]
    parts = []
    for i, (rule, draw) in enumerate(jobs):
        curves = _train(config, task, rule, draw, steps, lambda done, i=i: progress(i * last + done, len(jobs) * last))  # type: ignore[misc]
        parts.append(curves.expand_dims(rule=[rule], draw=[draw]))
    merged = xr.merge(parts, join="outer", compat="no_conflicts")
    return merged.assign_coords(epoch=("epoch", np.array(steps) / per_epoch, {"units": "epochs"}))


def _train(
    config: Config, task: _Task, rule: str, draw: int, steps: list[int], progress: Callable[[int], None]
) -> xr.Dataset:
    """Train the ensemble of one feedback draw under one rule, and measure it when so many steps are done."""
    first = config.first_seed + draw * config.networks
    seeds = range(first, first + config.networks)
    sizes = [task.train_x.shape[1], *config.hidden, task.classes]
    networks = EnsembleMLP(config.networks, sizes, config.activation, bias=False, seeds=seeds)
    with torch.no_grad():
        for weight in networks.parameters():
            weight.mul_(config.init_scale)
    net = _RULES[rule](networks, feedback=Uniform(), seed=config.first_seed + draw)
    measured = []

    def measure(step: int) -> None:
        if step in steps:
            measured.append(_measure(net, networks, task, config.probe))
        if step % 100 == 0 or step == steps[-1]:
            progress(step)

    train(
        net,
        task.train_x,
        task.train_y,
        loss_fn=summed_cross_entropy,
        optimizer=torch.optim.SGD(net.parameters(), lr=config.lr),
        epochs=config.epochs,
        batch_size=config.batch_size,
        # Data order has seeds of its own, apart from those of the initial weights.
        order=[torch.Generator().manual_seed(10_000 + seed) for seed in seeds],
        before_step=measure,
    )
    return xr.concat(measured, "epoch")


def _measure(net: DirectRule, networks: EnsembleMLP, task: _Task, probe: int) -> xr.Dataset:
    E = networks.n_networks
    probe_x, probe_y = task.train_x[:probe].expand(E, -1, -1), task.train_y[:probe].expand(E, -1)
    gradient = gradient_alignment(net, summed_cross_entropy, probe_x, probe_y)
    weight = weight_alignment(net)
    pairs = cross_seed_overlap(networks.state_dicts()).pairs
    with torch.no_grad():
        train_accuracy = (networks(task.train_x[:5000]).argmax(-1) == task.train_y[:5000]).double().mean(-1)
        test_accuracy = (networks(task.test_x).argmax(-1) == task.test_y).double().mean(-1)
    by_layer = torch.stack([cosines.nanmean(-1) for cosines in gradient.per_sample.values()])
    by_weight = torch.stack(list(weight.per_network.values()))
    return xr.Dataset(
        {
            "gradient_alignment": (("layer", "network"), by_layer.numpy()),
            "weight_alignment": (("weight_layer", "network"), by_weight.numpy()),
            "overlap": ("pair", pairs.numpy()),
            "train_accuracy": ("network", train_accuracy.numpy()),
            "test_accuracy": ("network", test_accuracy.numpy()),
        },
        coords={
            "layer": np.arange(1, len(by_layer) + 1),
            "weight_layer": np.arange(2, len(by_weight) + 2),
            "network": np.arange(E),
            "pair": np.arange(len(pairs)),
        },
    )


def onsets(dataset: xr.Dataset) -> xr.DataArray:
    """Return the onset of DFA's gradient alignment of every draw, network and layer, in epochs."""
    curves = dataset.gradient_alignment.sel(rule="dfa")
    epochs = dataset.epoch.values
    times: xr.DataArray = xr.apply_ufunc(
        lambda curve: onset(epochs, curve, ONSET), curves, input_core_dims=[["epoch"]], vectorize=True
    )
    return times


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold order of onset, cross-seed overlap and the worth of the hidden layers against the data."""
    draws, networks = dataset.sizes["draw"], dataset.sizes["network"]
    runs = f"{draws} feedback draws × {networks} networks"
    times = onsets(dataset)
    verdicts = []
    log_times = xr.apply_ufunc(np.log, times)
    # A run without an onset makes the verdict not a number: leaving it out would judge the claim on the runs that fit.
    log_ratio = log_times.diff("layer").mean("network", skipna=False).transpose("layer", "draw").values
    mean_times = np.exp(log_times.mean(("draw", "network"), skipna=False).values)
    for lower, ratios in enumerate(log_ratio, start=1):
        verdicts.append(
            Verdict(
                claim=(
                    f"layer {lower} aligns before layer {lower + 1} (alignment {ONSET} at epoch "
                    f"{mean_times[lower - 1]:.3g} and {mean_times[lower]:.3g}): logarithm of the ratio"
                ),
                effect=float(ratios.mean()),
                spread=float(ratios.std(ddof=1) / np.sqrt(draws)),
                threshold=0.0,
                side="above",
                sample=f"{runs}; spread: standard error over draws, one-sided 95 % (t)",
                margin=float(stats.t.isf(0.05, draws - 1)),
            )
        )
    end = dataset.isel(epoch=-1)
    overlap = end.overlap.mean("pair", skipna=False)
    verdicts += [
        Verdict(
            claim="DFA's cross-seed overlap ends above 0.3 (smallest value of all draws)",
            effect=float(overlap.sel(rule="dfa").min(skipna=False)),
            spread=float(overlap.sel(rule="dfa").std(ddof=1)),
            threshold=0.3,
            side="above",
            sample=f"{runs}; spread: standard deviation over draws",
        ),
        Verdict(
            claim="backprop's cross-seed overlap ends below 0.05",
            effect=float(overlap.sel(rule="bp", draw=0)),
            spread=float(end.overlap.sel(rule="bp", draw=0).std(ddof=1)),
            threshold=0.05,
            side="below",
            sample=f"{dataset.sizes['pair']} pairs of {networks} networks; spread: standard deviation over pairs",
        ),
    ]
    accuracy = end.test_accuracy
    bp, readout = (float(accuracy.sel(rule=rule, draw=0).mean(skipna=False)) for rule in ("bp", "readout"))
    # Where backprop gains nothing there is nothing to recover, and a ratio of two losses would look like a success.
    gain = bp - readout if bp > readout else float("nan")
    recovery = (accuracy.sel(rule="dfa") - readout) / gain
    verdicts.append(
        Verdict(
            claim=(
                "DFA's hidden layers recover more than half of what backprop gains over training the readout alone "
                f"(test accuracy {float(accuracy.sel(rule='dfa').mean()):.3f} of {bp:.3f}, readout only {readout:.3f})"
            ),
            effect=float(recovery.mean(skipna=False)),
            spread=float(recovery.std(ddof=1)),
            threshold=0.5,
            side="above",
            sample=f"{runs}; spread: standard deviation over runs",
        )
    )
    return verdicts


def plot(dataset: xr.Dataset) -> Figure:
    """Draw gradient and weight alignment by layer, cross-seed overlap and accuracy, over epochs."""
    after = dataset.isel(epoch=slice(1, None))
    epochs = after.epoch.values

    def samples(values: xr.DataArray) -> NDArray[Any]:
        """Every run a row: [runs, epochs]."""
        return values.transpose(..., "epoch").values.reshape(-1, len(epochs))

    with figure_style():
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
        for axes, name, dim, text, title, label in [
            (
                top_left,
                "gradient_alignment",
                "layer",
                "a",
                "gradients align from the bottom",
                "gradient alignment (cosine)",
            ),
            (
                top_right,
                "weight_alignment",
                "weight_layer",
                "b",
                "weights follow the feedback",
                "weight alignment (cosine)",
            ),
        ]:
            for layer, colour in zip(after[dim].values, layer_colours(after.sizes[dim]), strict=True):
                curves = after[name].sel({dim: layer})
                band(axes, epochs, samples(curves.sel(rule="dfa")), color=colour, label=f"layer {layer}")
                axes.plot(epochs, curves.sel(rule="bp", draw=0).mean("network"), color=colour, lw=1, ls=":")
            axes.axhline(0, color="0.8", lw=0.8, zorder=0)
            axes.set(xscale="log", xlabel="epochs", ylabel=label)
            letter(axes, text, title)
            axes.legend()
        for axes, name, text, title, label in [
            (bottom_left, "overlap", "c", "seeds move towards one solution", "cross-seed overlap (cosine)"),
            (bottom_right, "test_accuracy", "d", "accuracy beside its controls", "test accuracy"),
        ]:
            for rule, rule_colour in RULE_COLOURS.items():
                curves = after[name].sel(rule=rule)
                values = samples(curves.mean("pair") if name == "overlap" else curves)
                band(axes, epochs, values, color=rule_colour, label=RULE_LABELS[rule])
            axes.set(xscale="log", xlabel="epochs", ylabel=label)
            letter(axes, text, title)
            axes.legend()
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows and over how many runs."""
    return (
        f"Solid: mean under DFA over {dataset.sizes['draw']} feedback draws × {dataset.sizes['network']} networks, "
        f"band: one standard deviation. Dotted lines in a and b: the same cosines in networks trained with backprop "
        f"({dataset.sizes['network']} networks), which never see it. Overlap: mean cosine of "
        f"all weights over {dataset.sizes['pair']} pairs of networks of one draw."
    )
