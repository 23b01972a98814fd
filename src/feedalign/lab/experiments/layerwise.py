r"""Deep networks align layer by layer, from the bottom, and runs from different seeds end at related weights.

Claim: under DFA the gradient alignment of each hidden layer rises, the first layer's first. Out of all solutions the
rule favours one, whatever the initial weights and the order of the data: the weights of different runs overlap
(cross-seed overlap), as degeneracy breaking predicts. The same networks under backprop align with no feedback, and each
run finds another solution. Training the readout alone is the control that shows what the hidden layers contribute.

Setting: an ensemble of tanh (CIFAR-10: ReLU) networks without biases, SGD on the summed cross-entropy in batches of 32,
feedback uniform on ±1/√features, standardised inputs. The runs of one draw share their feedback; they differ in initial
weights and data order only.

Source: Refinetti et al. (2021), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feedalign import streams
from feedalign.alignment import onset
from feedalign.feedback import Uniform
from feedalign.lab.data import label_noise, load, prepare
from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.ensembles import measured_ensemble, scaled_ensemble, summed_cross_entropy
from feedalign.lab.experiments.common.images import ImageTask
from feedalign.lab.experiments.common.progress import Progress, counted_on
from feedalign.lab.experiments.common.statistics import mean_verdict
from feedalign.lab.experiments.common.verdict import Verdict
from feedalign.lab.training import one_thread, steps_per_epoch, train
from feedalign.rules import DFA, Backprop, ReadoutOnly
from feedalign.style import RULE_COLOURS, RULE_LABELS, band, figure_style, layer_colours, letter

NAME = "layerwise"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        dataset: "digits", "mnist" or "cifar10".
        image_size: height and width to which images are averaged down; 0 keeps the images as they are.
        hidden: widths of the hidden layers.
        activation: activation of the hidden layers.
        lr: learning rate for the loss summed over the batch.
        batch_size: samples in a step.
        epochs: passes through the data.
        label_noise: share of the training labels that is drawn at random.
        networks: runs for each draw of the feedback; they differ in initial weights and data order.
        draws: number of sets of feedback matrices. Backprop and readout-only do not use feedback to learn, and run for
            the first draw only.
        init_scale: the initial weights are PyTorch's (uniform on ±1/√fan_in) times this number.
        measurements: number of measured times after time 0, evenly spaced in log time.
        probe: number of training images on which alignment is measured.
        first_seed: seed from which all seeds are derived.
    """

    dataset: str
    image_size: int
    hidden: tuple[int, ...]
    activation: Literal["tanh", "relu", "linear"]
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
# With init_scale=1 the cross-seed overlap on CIFAR-10 ends at 0.23: the initial weights differ between networks and are
# as large as what is learned. A learning rate that is large enough to change this diverges.
_CIFAR10 = Config("cifar10", 14, (100, 100, 100, 100), "relu", 2e-4, 32, 20, 0.1, networks=4, draws=4, init_scale=0.7)

ON_DATASET = {
    "digits": {"quick": _DIGITS, "paper": replace(_DIGITS, epochs=400, networks=10, draws=6)},
    "mnist": {"quick": _MNIST, "paper": replace(_MNIST, epochs=10, networks=10, draws=6)},
    "cifar10": {"quick": _CIFAR10, "paper": replace(_CIFAR10, epochs=37, networks=6, draws=4)},
}
CONFIGS = {"quick": ON_DATASET["digits"]["quick"], "paper": ON_DATASET["mnist"]["paper"]}

# A layer has begun to align when its gradient alignment passes this value. The alignment of untrained networks of this
# size scatters by about 0.05 around zero, and ends above 0.4 in every layer.
ONSET = 0.2
RULES = {"dfa": DFA, "backprop": Backprop, "readout-only": ReadoutOnly}


def image_task(config: Config) -> ImageTask:
    """Load the images, flattened [n, pixels], and draw the label noise."""
    data = load(config.dataset)
    train_x, test_x = prepare(data, config.image_size or None)
    generator = streams.torch_generator(config.first_seed, "label noise")
    train_y, _ = label_noise(data.train_labels, config.label_noise, data.classes, generator)
    return ImageTask(train_x, train_y, test_x, data.test_labels, data.classes)


@one_thread()
def run(config: Config, progress: Progress) -> xr.Dataset:
    """Train the ensemble under every rule and measure it along the way."""
    task = image_task(config)
    per_epoch = steps_per_epoch(len(task.train_x), config.batch_size)
    last = per_epoch * config.epochs
    steps = sorted({0, *np.rint(np.geomspace(max(1, last / 1000), last, config.measurements)).astype(int).tolist()})
    ensembles = [(rule, draw) for rule in RULES for draw in range(config.draws if rule == "dfa" else 1)]
    parts = []
    for i, (rule, draw) in enumerate(ensembles):
        curves = _train(config, task, rule, draw, steps, counted_on(progress, i * last, len(ensembles) * last))
        parts.append(curves.expand_dims(rule=[rule], draw=[draw]))
    merged = xr.merge(parts, join="outer", compat="no_conflicts").reindex(rule=list(RULES))
    return merged.assign_coords(epoch=("epoch", np.array(steps) / per_epoch, {"units": "epochs"}))


def _train(
    config: Config, task: ImageTask, rule: str, draw: int, steps: list[int], progress: Callable[[int], None]
) -> xr.Dataset:
    """Train the ensemble of one feedback draw under one rule, and measure it after each of the given steps."""
    seeds = [streams.derived_seed(config.first_seed, "network", draw, i) for i in range(config.networks)]
    sizes = [task.train_x.shape[1], *config.hidden, task.classes]
    networks = scaled_ensemble(sizes, config.activation, seeds, config.init_scale)
    of_feedback = streams.derived_seed(config.first_seed, "feedback", draw)
    net = RULES[rule](networks, feedback=Uniform(), seed=of_feedback)
    measured = []

    def measure(step: int) -> None:
        if step in steps:
            measured.append(measured_ensemble(net, networks, task, config.probe))
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
        order=[streams.torch_generator(seed, "order") for seed in seeds],
        before_step=measure,
    )
    return xr.concat(measured, "epoch")


def onsets(dataset: xr.Dataset) -> xr.DataArray:
    """Return when DFA's gradient alignment passes `ONSET`, in epochs, for every draw, network and layer."""
    curves = dataset.gradient_alignment.sel(rule="dfa")
    epochs = dataset.epoch.values
    times: xr.DataArray = xr.apply_ufunc(
        lambda curve: onset(epochs, curve, ONSET), curves, input_core_dims=[["epoch"]], vectorize=True
    )
    return times


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the order of the layers, the cross-seed overlap, and what the hidden layers contribute."""
    return [*_order_of_layers(dataset), *_overlaps(dataset), _contribution(dataset)]


def _runs(dataset: xr.Dataset) -> str:
    return f"{dataset.sizes['draw']} feedback draws × {dataset.sizes['network']} networks"


def _order_of_layers(dataset: xr.Dataset) -> list[Verdict]:
    """Compare the onsets of neighbouring layers."""
    log_times = xr.apply_ufunc(np.log, onsets(dataset))
    # A run without an onset is not left out: it makes the verdict not a number, and so not supported.
    log_ratio = log_times.diff("layer").mean("network", skipna=False).transpose("layer", "draw").values
    mean_times = np.exp(log_times.mean(("draw", "network"), skipna=False).values)
    return [
        mean_verdict(
            f"layer {lower} aligns before layer {lower + 1} (alignment {ONSET} at epoch "
            f"{mean_times[lower - 1]:.3g} and {mean_times[lower]:.3g}): logarithm of the ratio",
            ratios,
            0.0,
            of="draws",
            sample=_runs(dataset),
        )
        for lower, ratios in enumerate(log_ratio, start=1)
    ]


def _overlaps(dataset: xr.Dataset) -> list[Verdict]:
    """Test whether runs from different seeds end at related weights."""
    pairs = dataset.overlap.isel(epoch=-1)
    dfa = pairs.sel(rule="dfa").mean("pair", skipna=False)
    backprop = pairs.sel(rule="backprop", draw=0)
    return [
        Verdict(
            claim="DFA's cross-seed overlap ends above 0.3 (smallest value of all draws)",
            effect=float(dfa.min(skipna=False)),
            spread=float(dfa.std(ddof=1)),
            threshold=0.3,
            side="above",
            sample=f"{_runs(dataset)}; spread: standard deviation over draws",
        ),
        Verdict(
            claim="backprop's cross-seed overlap ends below 0.05",
            effect=float(backprop.mean("pair", skipna=False)),
            spread=float(backprop.std(ddof=1)),
            threshold=0.05,
            side="below",
            sample=f"{dataset.sizes['pair']} pairs of {dataset.sizes['network']} networks; spread: standard deviation "
            "over pairs",
        ),
    ]


def _contribution(dataset: xr.Dataset) -> Verdict:
    """Compare test accuracies: how much of backprop's gain over the readout alone DFA reaches."""
    accuracy = dataset.test_accuracy.isel(epoch=-1)
    dfa = accuracy.sel(rule="dfa")
    backprop, readout = (
        float(accuracy.sel(rule=rule, draw=0).mean(skipna=False)) for rule in ("backprop", "readout-only")
    )
    # If backprop gains nothing, there is nothing to recover, and a ratio of two losses would look like a success.
    gain = backprop - readout if backprop > readout else float("nan")
    recovery = (dfa - readout) / gain
    return Verdict(
        claim=(
            "DFA's hidden layers recover more than half of what backprop gains over training the readout alone "
            f"(test accuracy {float(dfa.mean()):.3f} of {backprop:.3f}, readout only {readout:.3f})"
        ),
        effect=float(recovery.mean(skipna=False)),
        spread=float(recovery.std(ddof=1)),
        threshold=0.5,
        side="above",
        sample=f"{_runs(dataset)}; spread: standard deviation over runs",
    )


def plot(dataset: xr.Dataset) -> Figure:
    """Draw gradient and weight alignment by layer, cross-seed overlap and accuracy, over epochs."""
    after = dataset.isel(epoch=slice(1, None))
    with figure_style():
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
        _draw_layers(top_left, after.gradient_alignment, "layer")
        _draw_layers(top_right, after.weight_alignment, "weight_layer")
        _draw_rules(bottom_left, after.overlap.mean("pair"))
        _draw_rules(bottom_right, after.test_accuracy)
        for axes, text, title, label in (
            (top_left, "a", "gradients align from the bottom", "gradient alignment (cosine)"),
            (top_right, "b", "weights follow the feedback", "weight alignment (cosine)"),
            (bottom_left, "c", "seeds move towards one solution", "cross-seed overlap (cosine)"),
            (bottom_right, "d", "accuracy beside its controls", "test accuracy"),
        ):
            axes.set(xscale="log", xlabel="epochs", ylabel=label)
            axes.legend()
            letter(axes, text, title)
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
        axes.plot(epochs, of_layer.sel(rule="backprop", draw=0).mean("network"), color=colour, lw=1, ls=":")
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)


def _draw_rules(axes: Axes, values: xr.DataArray) -> None:
    """Draw every rule as a line with a band."""
    for rule in RULES:
        samples = _samples(values.sel(rule=rule).dropna("draw", how="all"))
        band(axes, values.epoch.values, samples, color=RULE_COLOURS[rule], label=RULE_LABELS[rule])


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        f"Solid: mean under DFA over {dataset.sizes['draw']} feedback draws × {dataset.sizes['network']} networks, "
        "band: one standard deviation. Dotted lines in a and b: the same cosines in "
        f"{dataset.sizes['network']} networks trained with backprop, which does not use the feedback. Overlap: mean "
        f"cosine of all weights over {dataset.sizes['pair']} pairs of networks of one draw."
    )
