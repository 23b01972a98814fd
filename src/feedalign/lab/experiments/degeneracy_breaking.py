r"""Degeneracy breaking: of all solutions, DFA takes the one that its feedback points to.

Claim: an erf student with as many units as its teacher has 2^K K! equally good solutions, the signed permutations of
the teacher. DFA first turns the readout v to the feedback F, and from there falls into the solution whose v has the
largest overlap with F; backprop, which knows no F, takes any.

Setting: order-parameter equations from small weights; first layers and feedback are Gaussian. The teacher's readout has
entries of different size, so that all solutions differ in v. Runs that have not come down to `solved` by the end time
are left out and counted: learning crawls where an entry of F is close to zero.

Source: Refinetti et al. (2021), section 2.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style, letter
from feedalign.theory import shallow

NAME = "degeneracy-breaking"
CLAIM = (
    "Out of all equally good solutions, a student trained with direct feedback alignment takes the one whose readout "
    "overlaps most with the feedback; backprop takes any."
)
RULES: tuple[Literal["dfa", "bp"], ...] = ("dfa", "bp")


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        teachers: second layers A; each gives K = M, and no two entries of one have the same size.
        input_dim: N of the random first layers that learning starts from.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        solved: ε_g at which a run has arrived, and stops.
        end_time: when a run is given up, in steps / N.
        draws: teachers, starts and feedback vectors for each A; both rules have the same.
        first_seed: of the draws.
    """

    teachers: tuple[tuple[float, ...], ...] = ((0.8, 1.5), (0.6, 1.1, 1.8))
    input_dim: int = 500
    lr: float = 0.1
    weight_scale: float = 0.01
    solved: float = 1e-5
    end_time: float = 1e5
    draws: int = 100
    first_seed: int = 0


CONFIGS = {
    "quick": Config(),
    "paper": Config(teachers=((0.8, 1.5), (0.6, 1.1, 1.8), (0.5, 0.9, 1.4, 2.0)), draws=400, end_time=1e6),
}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Integrate every draw under both rules; where a run ended, and what was predicted."""
    sizes = [len(A) for A in config.teachers]
    shape = (len(sizes), config.draws, max(sizes))
    feedback, predicted = np.full(shape, np.nan), np.full(shape, np.nan)
    final, nearest = np.full((len(RULES), *shape), np.nan), np.full((len(RULES), *shape), np.nan)
    error, distance = np.empty((len(RULES), *shape[:2])), np.empty((len(RULES), *shape[:2]))
    done, total = 0, len(sizes) * config.draws * len(RULES)
    for i, K in enumerate(sizes):
        for draw in range(config.draws):
            rng = np.random.default_rng([config.first_seed, K, draw])
            start = shallow.draw_start(
                config.teachers[i],
                students=K,
                input_dim=config.input_dim,
                rng=rng,
                w_std=config.weight_scale,
                v_std=config.weight_scale,
            )
            F = shallow.draw_feedback("random", start, rng)
            feedback[i, draw, :K], predicted[i, draw, :K] = F, shallow.selected_solution(start.A, F)
            for r, rule in enumerate(RULES):
                trajectory = shallow.integrate(
                    start, feedback=F, lr=config.lr, times=[config.end_time], rule=rule, stop_at_error=config.solved
                )
                minimum, distance[r, i, draw] = shallow.nearest_minimum(trajectory.final)
                final[r, i, draw, :K], nearest[r, i, draw, :K] = trajectory.v[-1], minimum.v
                error[r, i, draw] = trajectory.generalisation_error[-1]
                done += 1
                progress(done, total)
    by_run, by_unit = ("rule", "teacher", "draw"), ("rule", "teacher", "draw", "unit")
    return xr.Dataset(
        {
            "feedback": (by_unit[1:], feedback),
            "predicted_readout": (by_unit[1:], predicted),
            "final_readout": (by_unit, final),
            "nearest_readout": (by_unit, nearest, {"long_name": "v of the minimum nearest to the final state"}),
            "distance_to_nearest": (by_run, distance),
            "generalisation_error": (by_run, error),
        },
        coords={"rule": list(RULES), "hidden": ("teacher", sizes)},
        attrs={"solved": config.solved},
    )


def arrived(dataset: xr.Dataset) -> xr.DataArray:
    """Whether a run has come down to `solved`."""
    solved: xr.DataArray = dataset.generalisation_error < 1.01 * dataset.attrs["solved"]
    return solved  # the crossing is found to rounding


def at_prediction(dataset: xr.Dataset) -> xr.DataArray:
    """Whether the nearest minimum is the predicted one; arrived or not."""
    apart: xr.DataArray = dataset.nearest_readout - dataset.predicted_readout  # NaN where there is no such unit
    return abs(apart).max("unit") < 1e-9


def score(dataset: xr.Dataset) -> xr.DataArray:
    """Overlap of v with F at the minimum taken: 1 is the best minimum, 0 the mean of those with the signs of F.

    The permutation is all that counts between 0 and 1; a wrong sign can lead below 0.
    """
    taken: xr.DataArray = (dataset.nearest_readout * dataset.feedback).sum("unit")
    best: xr.DataArray = (dataset.predicted_readout * dataset.feedback).sum("unit")
    mean: xr.DataArray = abs(dataset.predicted_readout).mean("unit") * abs(dataset.feedback).sum("unit")
    return (taken - mean) / (best - mean)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold what DFA and backprop arrived at against the prediction, the worst K deciding."""
    counts = _counts(dataset)
    tests = {key: stats.binomtest(hits, runs) for key, (hits, runs) in counts.items() if runs}
    chance = {K: 1 / (2**K * math.factorial(K)) for K in dataset.hidden.values}
    lowest = {K: tests["dfa", K].proportion_ci().low for K in dataset.hidden.values if ("dfa", K) in tests}
    worst = min(lowest, key=lowest.__getitem__) if len(lowest) == dataset.sizes["teacher"] else None
    blind = [stats.binomtest(*counts["bp", K], chance[K]).pvalue for K in dataset.hidden.values if counts["bp", K][1]]
    dfa = dataset.sel(rule="dfa")
    scores = {int(K): score(dfa).values[i][arrived(dfa).values[i]] for i, K in enumerate(dataset.hidden)}
    mean = {K: each.mean() if each.size > 1 else np.nan for K, each in scores.items()}
    least = min(mean, key=lambda K: -np.inf if np.isnan(mean[K]) else mean[K])
    signs = np.sign(dfa.final_readout) == np.sign(dfa.feedback)
    signs = (signs | dfa.feedback.isnull()).all("unit").values[arrived(dfa)]
    of_dfa = "; ".join(f"K = {K}: {hits} of {runs}" for (rule, K), (hits, runs) in counts.items() if rule == "dfa")
    of_bp = "; ".join(f"K = {K}: {hits} of {runs}" for (rule, K), (hits, runs) in counts.items() if rule == "bp")
    return [
        Verdict(
            claim="most DFA runs that arrive are at the one predicted of 2^K K! solutions (share, smallest over K)",
            effect=tests["dfa", worst].statistic if worst else np.nan,
            spread=tests["dfa", worst].statistic - lowest[worst] if worst else np.nan,
            threshold=0.5,
            side="above",
            sample=f"{of_dfa} runs that arrived, of {dataset.sizes['draw']} each; spread: to the lower end of the "
            "95 % interval (exact)",
            margin=1.0,
        ),
        Verdict(
            claim="backprop from the same starts arrives there by chance: smallest p-value against 1/(2^K K!)",
            effect=float(min(blind, default=np.nan)),
            spread=float(np.std(blind)) if blind else np.nan,
            threshold=0.001,
            side="above",
            sample=f"{of_bp} runs that arrived; exact binomial tests",
        ),
        Verdict(
            claim="every readout ends with the signs of its feedback (share of DFA runs)",
            effect=float(signs.mean()) if signs.size else np.nan,
            spread=float(signs.std()) if signs.size else np.nan,
            threshold=0.99,
            side="above",
            sample=f"{signs.size} runs that arrived",
        ),
        Verdict(
            claim="where DFA misses the best solution it takes a good one: v·F, from 0 at a random permutation with "
            "the right signs to 1 at the best (mean, smallest over K)",
            effect=float(mean[least]),
            spread=float(scores[least].std(ddof=1) / np.sqrt(scores[least].size)) if scores[least].size > 1 else np.nan,
            threshold=0.5,
            side="above",
            sample=f"K = {least}: {scores[least].size} DFA runs that arrived; spread: standard error, two of them",
            margin=2.0,
        ),
    ]


def _counts(dataset: xr.Dataset) -> dict[tuple[str, int], tuple[int, int]]:
    """By rule and K: how many of the runs that arrived are at the prediction."""
    hits, runs = (at_prediction(dataset) & arrived(dataset)).sum("draw"), arrived(dataset).sum("draw")
    return {
        (rule, int(K)): (int(hits[r, i]), int(runs[r, i]))
        for (r, rule), (i, K) in itertools.product(enumerate(RULES), enumerate(dataset.hidden.values))
    }


def plot(dataset: xr.Dataset) -> Figure:
    """Draw readout against feedback as angles for K = 2, the share at the prediction, and what decides a miss."""
    with figure_style():
        figure = Figure(figsize=(8.6, 2.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _draw_angles(left, dataset.isel(teacher=0))
        letter(left, "a", f"the solution taken, K = {int(dataset.hidden[0])}")
        _draw_shares(middle, dataset)
        letter(middle, "b", "runs at the predicted one")
        _draw_misses(right, dataset)
        letter(right, "c", "what DFA gives away")
    return figure


def _draw_angles(axes: Axes, dataset: xr.Dataset) -> None:
    """Angle of (v_1, v_2) against that of (F_1, F_2); with K > 2, of their first two entries."""
    feedback, predicted = dataset.feedback.values, dataset.predicted_readout.values
    angle = np.degrees(np.arctan2(feedback[:, 1], feedback[:, 0]))
    if dataset.hidden == 2:
        sizes = np.abs(predicted[0, :2])
        grid = np.linspace(-180, 180, 1441)
        F = np.stack([np.cos(np.radians(grid)), np.sin(np.radians(grid))], axis=1)
        v = np.array([shallow.selected_solution(sizes, each) for each in F])
        axes.plot(grid, np.degrees(np.arctan2(v[:, 1], v[:, 0])), color="0.6", lw=1, zorder=0, label="prediction")
    for rule, marker in (("bp", "s"), ("dfa", "o")):
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
    counts, width = _counts(dataset), 0.36
    hidden = [int(K) for K in dataset.hidden]
    for rule, shift in (("dfa", -width / 2), ("bp", width / 2)):
        tests = [stats.binomtest(*counts[rule, K]) if counts[rule, K][1] else None for K in hidden]
        share = np.array([test.statistic if test else np.nan for test in tests])
        ends = np.array([test.proportion_ci(method="wilson") if test else (np.nan, np.nan) for test in tests])
        axes.bar(np.arange(len(hidden)) + shift, share, width, color=RULE_COLOURS[rule], label=RULE_LABELS[rule])
        axes.errorbar(
            np.arange(len(hidden)) + shift, share, np.abs(ends.T - share), fmt="none", ecolor="0.2", lw=1, capsize=2
        )
    for i, K in enumerate(hidden):
        chance = 1 / (2**K * math.factorial(K))
        axes.plot([i - width, i + width], [chance, chance], color="0.2", lw=1, ls=":", label="" if i else "chance")
    axes.set(
        xticks=range(len(hidden)),
        xlabel="hidden units K = M",
        ylabel="share of runs",
        yticks=np.linspace(0, 1, 6),
        ylim=(0, 1.25),
    )
    axes.set_xticklabels([str(K) for K in hidden])
    axes.legend(ncols=3, loc="upper center", columnspacing=1, handlelength=1.2)


def _draw_misses(axes: Axes, dataset: xr.Dataset) -> None:
    """Score of DFA runs against how close the two most similar |F_k| are."""
    dfa = dataset.sel(rule="dfa")
    sizes = np.sort(np.log(np.abs(dfa.feedback.values)), axis=-1)
    closest = np.exp(np.nanmin(np.diff(sizes, axis=-1), axis=-1))
    for i, K in enumerate(dfa.hidden.values):
        keep = arrived(dfa).values[i]
        axes.plot(
            closest[i][keep], score(dfa).values[i][keep], "o^sD"[i % 4], ms=3.5, alpha=0.7, markerfacecolor="white",
            color=RULE_COLOURS["dfa"], label=f"K = {K}",
        )  # fmt: skip
    axes.axhline(1, color="0.7", lw=0.8, zorder=0)
    axes.set(xscale="log", xlim=(0.9, 1.2 * closest.max()))
    axes.set(xlabel="ratio of the two most similar $|F_k|$", ylabel="alignment, 1 = best solution")
    axes.legend(loc="lower right")


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows and over how many runs."""
    left_out = "; ".join(
        f"{RULE_LABELS[rule]}, K = {K}: {dataset.sizes['draw'] - runs}"
        for (rule, K), (_, runs) in _counts(dataset).items()
    )
    return (
        "Erf students with K = M. (a) Direction of the readout after learning against that of the feedback; grey: the "
        "solution with the largest v·F. (b) Share of runs at the predicted solution, 95 % Wilson intervals. (c) v·F at "
        "the solution taken, from 0, a random permutation with the right signs, to 1, the best; misses happen where "
        f"two |F_k| are similar. {dataset.sizes['draw']} draws for each K and rule; not at ε_g = "
        f"{dataset.attrs['solved']:g} by the end and left out: {left_out}."
    )
