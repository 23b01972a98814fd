"""The figure of the experiment shallow-variations."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from feedalign.lab.experiments.common.shallow_runs import early_overlap
from feedalign.lab.experiments.shallow_variations_job import LEARNED, VARIATIONS
from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style

LABELS = {
    "plain": "plain",
    "noise": "label noise",
    "alternating": "A = (1, −1)",
    "positive": "F > 0",
    "four units": "K = M = 4",
    "orthogonal": "K = M = 4, $F \\perp A$",
    "relu": "ReLU, A = (1, −1)",
    "zero": "zero start",
    "large readout": "large $v_0$",
    "own readout": "large $v_0$, F = $v_0$",
    "informed": "informed start, F > 0",
    "informed, turned": "informed start, $F_1$ < 0",
}
# Curves that differ so much that all of them can be seen; Okabe & Ito's colours.
SHOWN = {
    "plain": "#D55E00",
    "noise": "#E69F00",
    "orthogonal": "#009E73",
    "large readout": "#56B4E9",
    "informed, turned": "#CC79A7",
}


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw what aligns in every variation, theory beside simulation, and what decides the solution."""
    titles = (
        "what aligns", "one draw: learning", "one draw: aligning", "what label noise takes", "informed starts",
        "ReLU, A = (1, −1)",
    )  # fmt: skip
    figure, every = panels(10.4, 5.6, titles, rows=2, width_ratios=(1.25, 1, 1))
    variations, learning, aligning, noise, informed, recovery = every
    _draw_variations(variations, dataset)
    _draw_curves(learning, dataset, "generalisation_error")
    learning.set(yscale="log", ylabel=r"generalisation error $\epsilon_g$", ylim=(2e-4, 2))
    learning.legend(loc="lower left", fontsize=7)
    _draw_curves(aligning, dataset, "overlap")
    aligning.set(ylabel=r"overlap $\cos(v, F)$", ylim=(-1.05, 1.08))
    _draw_noise(noise, dataset)
    _draw_informed(informed, dataset)
    _draw_recovery(recovery, dataset)
    return figure


def _draw_variations(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the early cosine under both rules and the late one under DFA, one row for each variation."""
    names = list(VARIATIONS)
    rows = np.arange(len(names))[::-1]
    theory = early_overlap(dataset.generalisation_error_theory, dataset.overlap_theory)
    simulation = early_overlap(dataset.generalisation_error_simulation, dataset.overlap_simulation).mean("seed")
    series = (
        (simulation, "dfa", "o", RULE_COLOURS["dfa"], "early", 0.0),
        (dataset.late_overlap, "dfa", "D", "white", "late", -0.22),
        (theory.sel(rule="backprop"), "backprop", "s", "white", "early", 0.22),
    )
    for values, rule, marker, face, when, shift in series:
        of_draws = values.sel(variation=names).transpose("draw", "variation").values
        half = stats.t.isf(0.025, len(of_draws) - 1) * stats.sem(of_draws)
        axes.errorbar(
            of_draws.mean(0), rows + shift, xerr=half, fmt=marker, ms=4, lw=1, color=RULE_COLOURS[rule],
            markerfacecolor=face, label=f"{RULE_LABELS[rule]}, {when}",
        )  # fmt: skip
    axes.axvline(0, color="0.85", lw=0.8, zorder=0)
    axes.axvline(1, color="0.85", lw=0.8, zorder=0)
    axes.set(
        xlabel=r"overlap $\cos(v, F)$",
        ylabel="variation",
        yticks=rows,
        xlim=(-1.45, 1.08),
        xticks=(-1, -0.5, 0, 0.5, 1),
    )
    axes.set_yticklabels([LABELS[name] for name in names])
    axes.legend(loc="lower left", fontsize=7)


def _draw_curves(axes: Axes, dataset: xr.Dataset, name: str) -> None:
    """Draw theory and simulation of the first draw under DFA."""
    first = dataset.isel(draw=0, time=slice(1, None))
    for variation, colour in SHOWN.items():
        of_one = first.sel(variation=variation)
        axes.plot(of_one.time, of_one[f"{name}_theory"].sel(rule="dfa"), color=colour, label=LABELS[variation])
        points = of_one[f"{name}_simulation"].mean("seed").isel(time=slice(None, None, 2))
        axes.plot(points.time, points, "o", ms=3, color=colour, markerfacecolor="white")
    axes.set(xscale="log", xlabel="time (steps / input dimension)")


def _draw_noise(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw |v_k| and |w_k|² / N under noise at the late time against |F_k|, every unit of every draw."""
    noisy = dataset.sel(variation="noise").transpose("draw", "unit", ...)
    sizes = abs(noisy.feedback).values.ravel()
    for values, marker, face, label in (
        (noisy.late_length, "s", "white", r"$|w_k|^2 / N$"),
        (abs(noisy.late_readout), "o", SHOWN["noise"], r"$|v_k|$"),
    ):
        axes.plot(sizes, values.values.ravel(), marker, ms=4, color=SHOWN["noise"], markerfacecolor=face, label=label)
    axes.axhline(1, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel=r"$|F_k|$", ylabel="at the late time, with noise", ylim=(0, 3.2))
    axes.legend(loc="upper left")


def _draw_informed(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the first entry of v at the late time against that of F; it started near A_1 = 1."""
    for variation, colour in (("informed", "0.5"), ("informed, turned", SHOWN["informed, turned"])):
        F, v = (
            dataset[name].sel(variation=variation).isel(unit=0).transpose("draw").values
            for name in ("feedback", "late_readout")
        )
        axes.plot(F, v, "o", ms=4.5, color=colour, markerfacecolor="white", label=LABELS[variation])
    axes.axhline(1, color="0.8", lw=0.8, zorder=0, label="start")
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="$F_1$", ylabel="$v_1$ at the late time", ylim=(-1.4, 2.4))
    axes.legend(loc="upper left", fontsize=7)


def _draw_recovery(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the feedback of ReLU students, filled where they learned."""
    relu = dataset.sel(variation="relu")
    learned = (relu.late_error / relu.generalisation_error_theory.sel(rule="dfa").isel(time=0) < LEARNED).values
    F = relu.feedback.transpose("draw", "unit").values
    for which, face, label in ((learned, RULE_COLOURS["dfa"], "learns"), (~learned, "white", "does not learn")):
        axes.plot(F[which, 0], F[which, 1], "o", ms=5, color=RULE_COLOURS["dfa"], markerfacecolor=face, label=label)
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="$F_1$", ylabel="$F_2$")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
    axes.legend(loc="upper center", ncols=2)
