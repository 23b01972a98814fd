r"""Degeneracy breaking: of all solutions, DFA takes one that its feedback decides.

An erf student with as many units as its teacher has 2^K K! equally good solutions, the signed permutations of the
teacher. DFA forgets a small start, so `shallow.predicted_minimum` follows the equations from zero weights. The figure
compares this prediction with the largest v·F, and shows that backprop, which does not use F, follows neither.

Setting: order-parameter equations from small weights; first layers and feedback are Gaussian. The entries of the
teacher's readout have different sizes, so that all solutions differ in v. Runs whose error has not fallen to `solved`
by the end time are left out of the verdicts and counted: learning is slow where an entry of F is close to zero.

Source: Refinetti et al. (2021), section 2, for the claim; the prediction is this project's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.verdict import Verdict, weakest
from feedalign.lab.experiments.degeneracy_breaking_job import RULES, Setting, Students
from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style
from feedalign.theory import shallow

NAME = "degeneracy-breaking"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, the number of draws.

    Attributes:
        draws: number of first layers, starts and feedback vectors for each A; both rules have the same.
    """

    draws: int = 100


CONFIGS = {"quick": Config(), "paper": Config(draws=400, end_time=1e6)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


def jobs(config: Config) -> list[Students]:
    """Return a job for every draw."""
    return jobs_on_grid(Students, config, draw=range(config.draws))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the draws side by side."""
    dataset = on_grid(results, draw=config.draws).transpose("rule", "teacher", "draw", "unit")
    dataset.nearest_readout.attrs["long_name"] = "v of the minimum nearest to the final state"
    sizes = [len(A) for A in config.teachers]
    return dataset.assign_coords(hidden=("teacher", sizes)).assign_attrs(solved=config.solved)


def arrived(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether each run has arrived at a solution: its error has fallen to `solved`."""
    # The integration stops where the error crosses `solved`, which it finds up to rounding.
    solved: xr.DataArray = dataset.generalisation_error < 1.01 * dataset.attrs["solved"]
    return solved


def at(dataset: xr.Dataset, predicted: str) -> xr.DataArray:
    """Return whether the minimum nearest to each run's end is the predicted one, arrived or not.

    `predicted` is the variable that holds the prediction: "predicted_readout" or "largest_overlap_readout".
    """
    apart: xr.DataArray = abs(dataset.nearest_readout - dataset[predicted])  # NaN where there is no such unit
    nowhere = dataset[predicted].isnull().all("unit")  # no prediction is no hit
    return (apart.max("unit") < 1e-9) & ~nowhere


def score(dataset: xr.Dataset) -> xr.DataArray:
    """Return how large v·F is at the minimum that a run took.

    1 is the largest of all minima; 0 is the mean of the minima whose v has the signs of F. Between 0 and 1 only the
    order of the units decides; a wrong sign can lead below 0.
    """
    taken = (dataset.nearest_readout * dataset.feedback).sum("unit")
    best = (dataset.largest_overlap_readout * dataset.feedback).sum("unit")
    mean = abs(dataset.largest_overlap_readout).mean("unit") * abs(dataset.feedback).sum("unit")
    scores: xr.DataArray = (taken - mean) / (best - mean)
    return scores


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Compare where DFA arrived with both predictions; the weakest K decides."""
    dfa = dataset.sel(rule="dfa")
    hits, here = at(dfa, "predicted_readout").values, arrived(dfa).values
    differ = (abs(dfa.predicted_readout - dfa.largest_overlap_readout) > 1e-9).any("unit").values
    signs = np.sign(dfa.final_readout) == np.sign(dfa.feedback)
    signs = (signs | dfa.feedback.isnull()).all("unit").values[here]
    run, drawn = "a run that arrived, with a draw of teacher, start and feedback", dataset.sizes["draw"]
    hidden = list(enumerate(dataset.hidden.values))
    at_predicted = [
        Verdict.of_share(
            "DFA runs that arrive are at the one predicted of 2^K K! solutions (share, weakest K)",
            hits[i][here[i]],
            0.8,
            sample=f"{run}; K = {K}: {(hits & here)[i].sum()} of {here[i].sum()}, of {drawn} drawn",
        )
        for i, K in hidden
    ]
    decided = [
        Verdict.of_share(
            "where the two predictions differ, DFA takes the predicted solution, not the one with the largest v·F "
            "(K > 2; share of runs, weakest K)",
            hits[i][here[i] & differ[i]],
            0.5,
            sample=f"{run}, and in which they differ; K = {K}",
        )
        for i, K in hidden
        if K > 2
    ]
    return [
        weakest(at_predicted),
        Verdict.of_share("every readout ends with the signs of its feedback (share of runs)", signs, 0.95, sample=run),
        *([weakest(decided)] if decided else []),
    ]


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw the readout's angle against the feedback's (K = 2), the share at each prediction, and the orders taken."""
    of_two, of_three = dataset.isel(teacher=0), dataset.isel(teacher=min(1, len(dataset.hidden) - 1))
    titles = (
        f"the solution taken, K = {int(of_two.hidden)}", "runs at the predicted one",
        f"the order taken, K = {int(of_three.hidden)}",
    )  # fmt: skip
    figure, (left, middle, right) = panels(8.6, 2.8, titles)
    _draw_angles(left, of_two)
    _draw_shares(middle, dataset)
    _draw_orders(right, of_three)
    return figure


def _draw_angles(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the angle of (v_1, v_2) against the angle of (F_1, F_2); if K > 2, of their first two entries."""
    feedback, sizes = dataset.feedback.values, np.abs(dataset.largest_overlap_readout.values[0, :2])
    angle = np.degrees(np.arctan2(feedback[:, 1], feedback[:, 0]))
    if dataset.hidden == 2:
        grid = np.linspace(-180, 180, 1441)
        F = np.stack([np.cos(np.radians(grid)), np.sin(np.radians(grid))], axis=1)
        v = np.array([shallow.selected_solution(sizes, each) for each in F])
        axes.plot(grid, np.degrees(np.arctan2(v[:, 1], v[:, 0])), color="0.6", lw=1, zorder=0, label="largest v·F")
    for rule, marker in (("backprop", "s"), ("dfa", "o")):
        runs = dataset.sel(rule=rule)
        final = runs.final_readout.values[arrived(runs)]
        axes.plot(
            angle[arrived(runs).values], np.degrees(np.arctan2(final[:, 1], final[:, 0])), marker, ms=3.5, alpha=0.8,
            markerfacecolor="white", color=RULE_COLOURS[rule], label=RULE_LABELS[rule], ls="",
        )  # fmt: skip
    ticks = (-180, -90, 0, 90, 180)
    axes.set(xlabel="direction of feedback F (degrees)", ylabel="direction of final v (degrees)", xticks=ticks)
    axes.set_yticks(ticks)
    axes.set_ylim(-185, 260)
    axes.legend(ncols=3, loc="upper center", handletextpad=0.3, columnspacing=0.8, handlelength=1.2)


def _draw_shares(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the share of runs at each prediction for every K, backprop's beside them, and the share by chance."""
    width, hidden = 0.26, [int(K) for K in dataset.hidden]
    bars = (
        ("dfa", "predicted_readout", RULE_COLOURS["dfa"], "DFA, at predicted"),
        ("dfa", "largest_overlap_readout", "0.7", "DFA, at largest v·F"),
        ("backprop", "predicted_readout", RULE_COLOURS["backprop"], "backprop"),
    )
    for j, (rule, predicted, colour, label) in enumerate(bars):
        runs, places = dataset.sel(rule=rule), np.arange(len(hidden)) + (j - 1) * width
        here = arrived(runs)
        counts = zip((at(runs, predicted) & here).sum("draw").values, here.sum("draw").values, strict=True)
        tests = [stats.binomtest(int(hits), int(of)) if of else None for hits, of in counts]
        share = np.array([test.statistic if test else np.nan for test in tests])
        ends = np.array([test.proportion_ci(method="wilson") if test else (np.nan, np.nan) for test in tests])
        axes.bar(places, share, width, color=colour, label=label)
        axes.errorbar(places, share, np.abs(ends.T - share), fmt="none", ecolor="0.2", lw=1, capsize=2)
    for i, K in enumerate(hidden):
        chance = 1 / (2**K * math.factorial(K))
        axes.plot(
            [i - 1.5 * width, i + 1.5 * width], [chance, chance], color="0.2", lw=1, ls=":", label="" if i else "chance"
        )
    axes.set(xticks=range(len(hidden)), xlabel="hidden units K = M", ylabel="share of runs", ylim=(0, 1.45))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xticklabels([str(K) for K in hidden])
    axes.legend(ncols=2, loc="upper center", columnspacing=0.6, handlelength=1, handletextpad=0.4)


def _draw_orders(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw which DFA runs took another order than that of the largest v·F, in the plane of two ratios of |F_k|."""
    dfa = dataset.sel(rule="dfa")
    sizes = np.sort(np.abs(dfa.feedback.values), axis=-1)  # NaN last
    K, here = int(dfa.hidden), arrived(dfa).values
    largest, second, smallest = sizes[:, K - 1], sizes[:, max(K - 2, 0)], sizes[:, 0]
    best, hit = at(dfa, "largest_overlap_readout").values, at(dfa, "predicted_readout").values
    for which, marker, label in ((best, "o", "largest v·F"), (~best, "^", "another")):
        for right, fill in ((hit, RULE_COLOURS["dfa"]), (~hit, "white")):
            shown = here & which & right
            axes.plot(
                (second / largest)[shown], (smallest / largest)[shown], marker, ms=4, alpha=0.8, ls="",
                color=RULE_COLOURS["dfa"], markerfacecolor=fill, label=label if right is hit else "",
            )  # fmt: skip
    axes.set(xlim=(0, 1.05), ylim=(0, 1.25), xlabel="second largest $|F_k|$ / largest", ylabel="smallest / largest")
    axes.legend(loc="upper left", ncols=2, handletextpad=0.3)


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    lost = (~arrived(dataset)).sum("draw")
    left_out = "; ".join(
        f"{RULE_LABELS[rule]}, K = {int(one.hidden)}: {int(one)}" for rule in RULES for one in lost.sel(rule=rule)
    )
    dfa = dataset.sel(rule="dfa")
    overlaps = ", ".join(
        f"{score(dfa).values[i][here].mean():.2f} (K = {int(dataset.hidden[i])})" if here.any() else "no run arrived"
        for i, here in enumerate(arrived(dfa).values)
    )
    return (
        "Erf students with K = M. (a) Direction of the readout after learning against the direction of the feedback; "
        "grey: the largest v·F, for K = 2 the predicted solution. (b) Share of runs at the predicted solution, "
        "and at the one with the largest v·F; 95 % Wilson intervals. (c) DFA runs by the sizes of their |F_k|, filled "
        "where the prediction was right. Where the two largest |F_k| are close, units exchange places. "
        f"Mean v·F at the solution taken, from 0 (a random order with the right signs) to 1 (the largest): {overlaps}. "
        f"{dataset.sizes['draw']} draws for each K and rule. "
        f"Left out, because ε_g had not fallen to {dataset.attrs['solved']:g} by the end: {left_out}."
    )
