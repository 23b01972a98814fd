r"""Gradient alignment is worth no particular accuracy: what counts is whether the deviation stays the same.

DFA deviates by a bias, as backprop under fixed noise does, but its bias is part of what it learns. Fixed noise makes
the weights of different runs alike, as feedback does: a cross-seed overlap alone does not show alignment.

Setting: ensembles of tanh networks with two hidden layers and without biases, SGD on the summed cross-entropy in
batches of 32, feedback uniform on [−1, 1]. `GradientNoise` adds noise of length ρ |g| to the gradient g of every weight
matrix: drawn anew for every step and network, or once for the draw. The update alignment of a layer is the cosine
between what the optimizer is given and the true gradient of the same batch, 1/√(1 + ρ²) under noise.

Thresholds were fixed before the judging run (settings were chosen at first seeds of 1 000 000 and above). To place DFA,
the recovery under noise is interpolated linearly in the update alignment, which is averaged over layers and epochs.

Source: Refinetti et al. (2021), section 4: degeneracy breaking. The controls are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.ensemble_training import EnsembleSetting, EnsembleTraining
from feedalign.lab.experiments.common.gradient_noise import NoiseKind
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.recovery import recovered
from feedalign.lab.experiments.common.relatives import with_relatives
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style

NAME = "gradient-perturbation"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(EnsembleSetting):
    """Everything that decides the result.

    Attributes:
        hidden: widths of the hidden layers.
        activation: activation of the hidden layers.
        lr: learning rate for the loss summed over the batch.
        norms: ρ, lengths of the noise relative to the gradient, the smallest first; 2 and 8 are judged.
        draws: number of sets of feedback, noise and initial weights.
    """

    hidden: tuple[int, ...] = (32, 32)
    activation: Literal["tanh", "relu", "linear"] = "tanh"
    lr: float = 2e-3
    norms: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    draws: int
    feedback_scale: float | None = 1.0


_DIGITS = Config(dataset="digits", epochs=15, networks=2, draws=5, measurements=10, first_measured=0.003, probe=300)
_PAPER = Config(dataset="mnist", image_size=14, hidden=(64, 64), lr=1e-3, epochs=20, networks=10, draws=5)

ON_DATASET = with_relatives(
    {
        "digits": {"quick": _DIGITS, "paper": replace(_DIGITS, epochs=60, networks=10, draws=10)},
        "mnist": {"quick": replace(_DIGITS, dataset="mnist", image_size=14, epochs=1), "paper": _PAPER},
        "cifar10": {
            "quick": replace(_DIGITS, dataset="cifar10", image_size=14, lr=1e-3, epochs=2),
            "paper": replace(_PAPER, dataset="cifar10", epochs=40),
        },
    }
)
CONFIGS = {"quick": _DIGITS, "paper": _PAPER}

RULES = ("dfa", "backprop", "readout-only")
KINDS: tuple[NoiseKind, ...] = ("random", "fixed")
LABELS = {"random": "backprop, random noise", "fixed": "backprop, fixed noise"}
STYLES = {"random": ":", "fixed": "--"}
FIXED_NORM, RANDOM_NORM = 2.0, 8.0  # at which each kind of noise is judged


def jobs(config: Config) -> list[EnsembleTraining]:
    """Return a job for every draw under every rule, and under backprop with every noise."""
    draws = range(config.draws)
    plain = jobs_on_grid(EnsembleTraining, config, rule=RULES, draw=draws)
    return plain + jobs_on_grid(
        EnsembleTraining, config, rule=["backprop"], noise_kind=KINDS, noise_norm=config.norms, draw=draws
    )


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put rules and draws side by side, and what happened under noise, as `noisy_…`."""
    variables = ["overlap", "train_accuracy", "test_accuracy"]
    plain = len(RULES) * config.draws
    # Under "readout-only" the hidden layers have no update, under noise the alignment is known.
    rules = on_grid(results[:plain], rule=len(RULES), draw=config.draws)[["update_alignment", *variables]]
    noisy = on_grid(results[plain:], kind=len(KINDS), norm=len(config.norms), draw=config.draws)[variables]
    return xr.merge([rules, noisy.rename({name: f"noisy_{name}" for name in variables})]).assign_coords(
        rule=list(RULES), kind=list(KINDS), norm=list(config.norms), draw=range(config.draws)
    )


def alignment(updates: xr.DataArray) -> xr.DataArray:
    """Return the update alignment, the mean over layers, networks and the epochs of the training."""
    over_epochs: xr.DataArray = updates.integrate("epoch") / float(updates.epoch[-1] - updates.epoch[0])
    return over_epochs.mean(("layer", "network"), skipna=False)


def alignment_under_noise(norms: xr.DataArray) -> xr.DataArray:
    """Return the update alignment of backprop under noise of these lengths, 1/√(1 + ρ²)."""
    cosines: xr.DataArray = 1 / xr.apply_ufunc(np.sqrt, 1 + norms**2)
    return cosines


def accuracies(values: xr.DataArray) -> xr.DataArray:
    """Return the accuracy at the end, the mean over networks."""
    return values.isel(epoch=-1, drop=True).mean("network", skipna=False)


def recoveries(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return what DFA, [draw], and backprop under noise, [kind, norm, draw], recover of backprop's gain."""
    plain = accuracies(dataset.test_accuracy)
    backprop, readout = (plain.sel(rule=rule, drop=True) for rule in ("backprop", "readout-only"))
    of_dfa, noisy = plain.sel(rule="dfa", drop=True), accuracies(dataset.noisy_test_accuracy)
    return recovered(of_dfa, readout, backprop), recovered(noisy, readout, backprop)


def at_alignment_of_dfa(dataset: xr.Dataset) -> xr.DataArray:
    """Return what backprop recovers under noise of the update alignment that DFA has, [kind, draw].

    Interpolated between the noises; without noise the alignment and the recovery are 1.
    """
    _, noisy = recoveries(dataset)
    dfa = alignment(dataset.update_alignment.sel(rule="dfa", drop=True))
    placed: xr.DataArray = xr.apply_ufunc(
        _interpolated, dfa, alignment_under_noise(dataset.norm), noisy,
        input_core_dims=[[], ["norm"], ["norm"]], vectorize=True,
    )  # fmt: skip
    return placed


def _interpolated(at: float, cosines: NDArray[Any], recovered: NDArray[Any]) -> float:
    if not np.isfinite([at, *recovered]).all():
        return np.nan
    order = np.argsort(cosines)
    return float(np.interp(at, [*cosines[order], 1.0], [*recovered[order], 1.0]))


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test what noise of each kind costs, where DFA stands beside it, and what fixed noise does to the overlap."""
    dfa, noisy = recoveries(dataset)
    random, fixed = (at_alignment_of_dfa(dataset).sel(kind=kind, drop=True) for kind in KINDS)
    aligned = float(alignment(dataset.update_alignment.sel(rule="dfa")).mean())
    overlaps = dataset.noisy_overlap.isel(epoch=-1).sel(norm=FIXED_NORM).mean("pair", skipna=False)
    sample = f"a draw of feedback, noise and initial weights; mean over {dataset.sizes['network']} networks"
    return verdicts_on(sample, {
        f"random noise of {RANDOM_NORM:g} times the gradient's length leaves backprop most of its gain: recovery":
            (noisy.sel(kind="random", norm=RANDOM_NORM), "above", 0.8),
        f"fixed noise of {FIXED_NORM:g} times the gradient's length costs backprop more than half: recovery":
            (noisy.sel(kind="fixed", norm=FIXED_NORM), "below", 0.5),
        f"DFA recovers more than fixed noise of DFA's update alignment ({aligned:.2f}): difference of recoveries":
            (dfa - fixed, "above", 0.2),
        "DFA recovers no less, to one tenth, than random noise of the same update alignment: difference":
            (dfa - random, "above", -0.1),
        f"fixed noise of {FIXED_NORM:g} times the gradient's length makes the runs of a draw alike, random noise does "
        "not: difference of the cross-seed overlaps":
            (overlaps.sel(kind="fixed") - overlaps.sel(kind="random"), "above", 0.5),
    })  # fmt: skip


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw accuracy against update alignment, accuracy over epochs, and overlap against update alignment."""
    titles = ("accuracy for alignment", f"over training, ρ = {FIXED_NORM:g}", "seeds end together")
    figure, (left, middle, right) = panels(8.8, 2.9, titles)
    cosines, final = alignment_under_noise(dataset.norm), accuracies(dataset.noisy_test_accuracy)
    overlap = dataset.noisy_overlap.isel(epoch=-1).mean("pair")
    for kind in KINDS:
        line: dict[str, Any] = {"color": RULE_COLOURS["backprop"], "ls": STYLES[kind], "marker": "o", "ms": 3}
        for axes, values in ((left, final), (right, overlap)):
            of_kind = values.sel(kind=kind)
            axes.errorbar(cosines, of_kind.mean("draw"), of_kind.std("draw"), label=LABELS[kind], capsize=2, **line)
        curve = dataset.noisy_test_accuracy.sel(kind=kind, norm=FIXED_NORM).mean(("draw", "network"))
        middle.plot(curve.epoch, curve, color=line["color"], ls=line["ls"], label=f"{LABELS[kind]}, ρ = {FIXED_NORM:g}")
    for rule in RULES:
        colour, accuracy = RULE_COLOURS[rule], accuracies(dataset.test_accuracy).sel(rule=rule)
        curve = dataset.test_accuracy.sel(rule=rule).mean(("draw", "network"))
        middle.plot(curve.epoch, curve, color=colour, lw=1)
        if rule == "readout-only":
            left.axhline(float(accuracy.mean()), color=colour, lw=1, label=RULE_LABELS[rule])
            continue
        x = alignment(dataset.update_alignment).sel(rule=rule).mean("draw")
        own = dataset.overlap.isel(epoch=-1).sel(rule=rule).mean("pair")
        for axes, values in ((left, accuracy), (right, own)):
            axes.errorbar(x, values.mean(), values.std(), fmt="s", ms=5, color=colour, label=RULE_LABELS[rule])
    left.set(xlabel="update alignment (cosine)", ylabel="test accuracy", ylim=(0, 1))
    middle.set(xlabel="epochs", ylabel="test accuracy", ylim=(0, 1))
    right.set(xlabel="update alignment (cosine)", ylabel="cross-seed overlap", ylim=(-0.1, 1.05))
    right.legend(*left.get_legend_handles_labels(), loc="center left")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        "Backprop with noise on its gradients, beside DFA, backprop and training the readout alone. (a) Test accuracy "
        "at the end against update alignment, the cosine between what the optimizer is given and the true gradient, "
        "for DFA the mean over layers and epochs. (b) Test accuracy over epochs, with noise of twice the gradient's "
        "length. (c) Cross-seed overlap of the networks of a draw. Means over "
        f"{dataset.sizes['draw']} draws of feedback, noise and initial weights × {dataset.sizes['network']} networks; "
        "bars: one standard deviation over draws."
    )
