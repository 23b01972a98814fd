r"""Deep networks align first and memorise afterwards, and memorising costs them part of their alignment.

Setting: ensembles of networks with two hidden layers and without biases, SGD on the summed cross-entropy in batches of
32, feedback uniform on [−1, 1]. A share of the training labels is drawn anew from all classes. The runs of one draw
share images, label noise and feedback; they differ in initial weights and data order only.

ReLU networks are shown too. Their alignment is still rising when the training ends, so nothing is claimed of their end.

Thresholds were fixed before the judging run (settings were chosen at first seeds of 1 000 000 and above). A network has
aligned when the mean gradient alignment of its hidden layers passes half of its maximum, which must be above 0.2.

Source: Refinetti et al. (2021), section 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.curves import at_maximum, log_half_time, log_onset, sinks
from feedalign.lab.experiments.common.ensemble_training import EnsembleSetting, EnsembleTraining
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.relatives import with_relatives
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on, weakest
from feedalign.lab.panels import panels
from feedalign.style import band, figure_style, layer_colours

NAME = "deep-dynamics"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(EnsembleSetting):
    """Everything that decides the result.

    Attributes:
        hidden: widths of the hidden layers.
        activations: pairs (activation of the hidden layers, learning rate for the loss summed over the batch).
        label_noises: shares of the training labels that are drawn at random, from the smallest to the largest.
        draws: number of sets of images, label noise, feedback and initial weights.
    """

    hidden: tuple[int, ...]
    activations: tuple[tuple[Literal["tanh", "relu"], float], ...]
    label_noises: tuple[float, ...]
    draws: int
    feedback_scale: float | None = 1.0


# So few weights that memorising costs alignment: at width 64 it costs none.
_DIGITS = Config(
    dataset="digits", train_images=640, hidden=(24, 24), activations=(("tanh", 6e-3), ("relu", 6e-4)),
    label_noises=(0.0, 0.2, 0.5), epochs=240, networks=2, draws=8, measurements=20, probe=300,
)  # fmt: skip
_PAPER = Config(
    dataset="mnist", image_size=14, hidden=(64, 64), activations=(("tanh", 1e-3), ("relu", 1e-3)),
    label_noises=(0.0, 0.1, 0.2, 0.5, 0.9), epochs=1000, networks=10, draws=3, measurements=40, first_measured=1e-5,
)  # fmt: skip

# Ten classes of CIFAR-100, so that chance stays at a tenth, from which the thresholds are counted.
ON_DATASET = with_relatives({
    "digits": {"quick": _DIGITS, "paper": replace(_PAPER, dataset="digits", image_size=0)},
    "mnist": {"quick": replace(_DIGITS, dataset="mnist", image_size=14), "paper": _PAPER},
    "cifar10": {name: replace(config, dataset="cifar10", image_size=14) for name, config in
                (("quick", _DIGITS), ("paper", _PAPER))},
}, classes=tuple(range(10)))  # fmt: skip
CONFIGS = {"quick": _DIGITS, "paper": _PAPER}

RULES = ("dfa", "backprop")
MEMORISED = 0.2  # of the corrupted labels; chance is 0.1
ALIGNS = 0.2  # a gradient alignment that stays below is none; as the onset in layerwise
EARLIER = 3.0  # alignment comes first if memorisation takes this many times longer
SINK = 0.02  # of a cosine, beyond that of the controls


def jobs(config: Config) -> list[EnsembleTraining]:
    """Return a job for every activation, rule, label noise and draw."""
    return [
        job
        for activation, lr in config.activations
        for job in jobs_on_grid(
            EnsembleTraining, config, activation=[activation], lr=[lr], rule=RULES, label_noise=config.label_noises,
            draw=range(config.draws),
        )
    ]  # fmt: skip


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put activations, rules, label noises and draws side by side."""
    names = [name for name, _ in config.activations]
    return on_grid(results, activation=names, rule=RULES, noise=config.label_noises, draw=range(config.draws))


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test what comes first, what memorising costs, what noise does, and the overlap."""
    return [
        _alignment_first(dataset),
        *_memorising(dataset),
        *_with_noise(dataset),
        _overlap(dataset),
    ]


def _sample(dataset: xr.Dataset) -> str:
    return f"a draw of images, noise, feedback and initial weights; mean over {dataset.sizes['network']} networks"


def _over_networks(values: xr.DataArray, rule: str = "dfa") -> xr.DataArray:
    """Return the mean over the networks of a draw; not a number if one of the networks has diverged."""
    return values.sel(rule=rule, drop=True).mean("network", skipna=False)


def _second_layer(dataset: xr.Dataset, rule: str = "dfa") -> xr.DataArray:
    """Return the weight alignment of the second layer, [activation, noise, draw, epoch]."""
    return _over_networks(dataset.weight_alignment.sel(weight_layer=2, drop=True), rule)


def _weakest(dataset: xr.Dataset, claim: str, values: xr.DataArray, threshold: float = 0.0) -> Verdict:
    """Return the verdict on the weakest case, an activation with a label noise. Its name takes the place of {}."""
    return weakest(
        Verdict.of_mean(
            claim.format(f"{activation}, noise {noise:g}"),
            values.sel(activation=activation, noise=noise),
            threshold,
            sample=_sample(dataset),
        )
        for activation, noise in itertools.product(values.activation.values, values.noise.values)
    )


def _alignment_first(dataset: xr.Dataset) -> Verdict:
    """Compare the times at which networks align and memorise, wherever there is noise to memorise."""
    noisy = dataset.isel(noise=slice(1, None))
    memorised = log_onset(_over_networks(noisy.corrupted_accuracy), MEMORISED)
    aligned = _over_networks(noisy.gradient_alignment.mean("layer", skipna=False))
    # Half of the maximum of a curve that only scatters around zero is no time of alignment.
    ratio = memorised - log_half_time(aligned).where(aligned.max("epoch", skipna=False) > ALIGNS)
    claim = (
        "alignment comes before memorisation ({}, the weakest case): logarithm of the ratio of the epochs at "
        f"which the corrupted accuracy reaches {MEMORISED:g} and gradient alignment half of its maximum"
    )
    return _weakest(dataset, claim, ratio, np.log(EARLIER))


def _noisy_tanh(values: xr.DataArray) -> xr.DataArray:
    """Return the values of tanh networks where half of the labels are drawn: there the cost of memorising is judged."""
    return values.sel(activation="tanh", noise=0.5, drop=True)


def _memorising(dataset: xr.Dataset) -> list[Verdict]:
    """Test what is fitted before and after the weight alignment is highest, and how far the alignment sinks.

    The sink is compared with the sink without noise, and with the sink under backprop.
    """
    second = _second_layer(dataset)
    peak = _noisy_tanh(second)
    right, wrong = (_noisy_tanh(_over_networks(dataset[name])) for name in ("clean_accuracy", "corrupted_accuracy"))
    clean, corrupted = at_maximum(right, peak), at_maximum(wrong, peak)
    noisy, without = sinks(peak), sinks(second).sel(activation="tanh", noise=0.0, drop=True)
    under_backprop = _noisy_tanh(sinks(_second_layer(dataset, "backprop")))
    controls = xr.apply_ufunc(np.maximum, without, under_backprop)
    return verdicts_on(_sample(dataset), {
        "tanh, noise 0.5: when the weight alignment of layer 2 is highest, the labels that are right are fitted and "
        f"those that are wrong are not (accuracy {float(clean.mean()):.2f} and {float(corrupted.mean()):.2f}): "
        "difference": (clean - corrupted, "above", 0.5),
        f"tanh, noise 0.5: the weight alignment of layer 2 sinks from its maximum (by {float(noisy.mean()):.3f}) more "
        f"than without noise ({float(without.mean()):.3f}) and more than under backprop "
        f"({float(under_backprop.mean()):.3f}): difference from the larger of the two in the same draw":
            (noisy - controls, "above", SINK),
        "tanh, noise 0.5: the wrong labels are fitted while it sinks: corrupted accuracy at the end minus that at the "
        "maximum of the weight alignment": (wrong.isel(epoch=-1, drop=True) - corrupted, "above", 0.5),
    })  # fmt: skip


def _with_noise(dataset: xr.Dataset) -> list[Verdict]:
    """Test what more noise does to the second layer, between the neighbouring noises where it does least."""
    course = _second_layer(dataset)
    end = course.isel(epoch=-1, drop=True).sel(activation=["tanh"])
    later = "the more noise, the later the weights of layer 2 align: log ratio of the epochs"
    lower = "the more noise, the lower the weight alignment of layer 2 ends: difference"
    return [
        _weakest(dataset, claim + " ({} and the next, the weakest case)", values.diff("noise", label="lower"))
        for claim, values in ((later, log_half_time(course)), (lower, -end))
    ]


def _overlap(dataset: xr.Dataset) -> Verdict:
    """Compare the cross-seed overlaps of the rules in every condition."""
    end = dataset.overlap.isel(epoch=-1, drop=True).mean("pair", skipna=False)
    claim = (
        "the networks of a draw end with related weights under DFA and not under backprop ({}, the weakest case): "
        "difference of the cross-seed overlaps"
    )
    return _weakest(dataset, claim, end.sel(rule="dfa", drop=True) - end.sel(rule="backprop", drop=True), 0.2)


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw accuracy on clean and corrupted labels, gradient and weight alignment, and overlap, for every noise."""
    after = dataset.isel(epoch=slice(1, None))
    activations = dataset.activation.values
    names = ["ReLU" if activation == "relu" else activation for activation in activations]
    titles = [f"{name}: {title}" for name in names for title in _TITLES]
    figure, every = panels(10.4, 2.6 * len(activations), titles, rows=len(activations))
    for i, activation in enumerate(activations):
        row, of = every[4 * i : 4 * i + 4], after.sel(activation=activation)
        _draw(row[0], of.clean_accuracy, of.corrupted_accuracy, styles=("-", "--"))
        _draw(row[1], of.gradient_alignment.mean("layer"))
        _draw(row[2], of.weight_alignment.sel(weight_layer=2))
        _draw(row[3], of.overlap)
        for axes, label in zip(row, _LABELS, strict=True):
            axes.set(xscale="log", xlabel="epochs", ylabel=label)
        row[3].legend(title="label noise", loc=(0.5, 0.1))  # where no curve runs
    return figure


_TITLES = ("right and wrong labels", "gradients align", "weights align, layer 2", "seeds end together")
_LABELS = ("training accuracy", "gradient alignment (cosine)", "weight alignment (cosine)", "overlap (cosine)")


def _draw(axes: Axes, *variables: xr.DataArray, styles: Sequence[str] = ("-",)) -> None:
    """Draw variables under DFA as lines with bands, one colour for each noise; under backprop as dotted lines."""
    epochs = variables[0].epoch.values
    for noise, colour in zip(variables[0].noise.values, layer_colours(variables[0].sizes["noise"]), strict=True):
        for values, style in zip(variables, styles, strict=True):
            of = values.sel(noise=noise)
            if of.isnull().all():  # corrupted accuracy without noise
                continue
            label = f"{noise:g}" if style == "-" else None
            band(axes, epochs, _runs(of.sel(rule="dfa")), color=colour, ls=style, label=label)
            if len(variables) == 1:
                axes.plot(epochs, _runs(of.sel(rule="backprop")).mean(0), color=colour, lw=1, ls=":")


def _runs(values: xr.DataArray) -> NDArray[Any]:
    """Return a row for every draw, [draws, epochs]: means over what is measured within a draw."""
    return values.mean([dim for dim in values.dims if dim not in ("draw", "epoch")]).transpose("draw", "epoch").values


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        "Networks with two hidden layers on images of which a share (colour) has random labels. Solid lines: mean "
        f"under DFA over {dataset.sizes['draw']} draws of images, noise and feedback × {dataset.sizes['network']} "
        "networks; band: one standard deviation over draws. Accuracy on labels that are right is solid, on labels that "
        "are wrong dashed. Dotted: backprop from the same initial weights. Overlap: mean cosine of all weights over "
        "pairs of networks of one draw."
    )
