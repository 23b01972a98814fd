r"""Degeneracy breaking: of all solutions, DFA takes the one that its feedback points to.

Claim: an erf student with as many units as its teacher has 2^K K! equally good solutions, the signed permutations of
the teacher. DFA first turns the readout v to the feedback F, and from there falls into the solution whose v has the
largest overlap with F. Backprop does not use F; the figure shows that its solutions do not follow F.

Setting: order-parameter equations from small weights; first layers and feedback are Gaussian. The entries of the
teacher's readout have different sizes, so that all solutions differ in v. Runs whose error has not fallen to `solved`
by the end time are left out of the verdicts and counted: learning is slow where an entry of F is close to zero.

Source: Refinetti et al. (2021), section 2.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.progress import Progress
from feedalign.lab.experiments.common.verdict import Verdict, weakest
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style, letter
from feedalign.theory import shallow

NAME = "degeneracy-breaking"
CLAIM = CLAIMS[NAME]
RULES = ("dfa", "backprop")


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        teachers: second layers A, each with K = M entries of different sizes.
        input_dim: N, the number of inputs of the initial random first layers.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        solved: ε_g at which a run has arrived at a solution, and stops.
        end_time: when a run that has not arrived is stopped, in steps / N.
        draws: number of first layers, starts and feedback vectors for each A; both rules have the same.
        first_seed: seed from which every draw gets its own.
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
    """Integrate every draw under both rules; store where each run ended, and the solution that was predicted."""
    sizes = [len(A) for A in config.teachers]
    teachers = []
    for i, A in enumerate(config.teachers):
        draws = []
        for draw in range(config.draws):
            draws.append(_draw(config, A, draw).pad(unit=(0, max(sizes) - len(A))))  # NaN where there is no such unit
            progress(i * config.draws + draw + 1, len(sizes) * config.draws)
        teachers.append(xr.concat(draws, "draw"))
    dataset = xr.concat(teachers, "teacher").transpose("rule", "teacher", "draw", "unit")
    dataset.nearest_readout.attrs["long_name"] = "v of the minimum nearest to the final state"
    return dataset.assign_coords(rule=list(RULES), hidden=("teacher", sizes)).assign_attrs(solved=config.solved)


def _draw(config: Config, A: tuple[float, ...], draw: int) -> xr.Dataset:
    """Both rules from one start, with one feedback vector."""
    rng = np.random.default_rng([config.first_seed, len(A), draw])
    scale = config.weight_scale
    start = shallow.draw_start(A, students=len(A), input_dim=config.input_dim, rng=rng, w_std=scale, v_std=scale)
    F = shallow.draw_feedback("random", start, rng)
    runs = [
        shallow.integrate(
            start, feedback=F, lr=config.lr, times=[config.end_time], rule=shallow_rule(rule),
            stop_at_error=config.solved,
        )
        for rule in RULES
    ]  # fmt: skip
    nearest = [shallow.nearest_minimum(run.final) for run in runs]
    return xr.Dataset(
        {
            "feedback": ("unit", F),
            "predicted_readout": ("unit", shallow.selected_solution(start.A, F)),
            "final_readout": (("rule", "unit"), [run.v[-1] for run in runs]),
            "nearest_readout": (("rule", "unit"), [minimum.v for minimum, _ in nearest]),
            "distance_to_nearest": ("rule", [distance for _, distance in nearest]),
            "generalisation_error": ("rule", [run.generalisation_error[-1] for run in runs]),
        }
    )


def arrived(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether each run has arrived at a solution: its error has fallen to `solved`."""
    # The integration stops where the error crosses `solved`, which it finds up to rounding.
    solved: xr.DataArray = dataset.generalisation_error < 1.01 * dataset.attrs["solved"]
    return solved


def at_prediction(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether the minimum nearest to each run's end is the predicted one, arrived or not."""
    apart: xr.DataArray = dataset.nearest_readout - dataset.predicted_readout  # NaN where there is no such unit
    return abs(apart).max("unit") < 1e-9


def score(dataset: xr.Dataset) -> xr.DataArray:
    """Return how good the minimum that a run took is, by v·F.

    1 is the best minimum; 0 is the mean of the minima whose v has the signs of F. Between 0 and 1 only the order of
    the units decides; a wrong sign can lead below 0.
    """
    taken: xr.DataArray = (dataset.nearest_readout * dataset.feedback).sum("unit")
    best: xr.DataArray = (dataset.predicted_readout * dataset.feedback).sum("unit")
    mean: xr.DataArray = abs(dataset.predicted_readout).mean("unit") * abs(dataset.feedback).sum("unit")
    return (taken - mean) / (best - mean)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Compare where DFA arrived with the prediction; the weakest K decides."""
    dfa = dataset.sel(rule="dfa")
    here = [arrived(dfa).values[i] for i in range(len(dataset.hidden))]
    names = [f"K = {int(K)}" for K in dataset.hidden]
    hits, scores = (
        [of_all[i][arrived_here] for i, arrived_here in enumerate(here)]
        for of_all in (at_prediction(dfa).values, score(dfa).values)
    )
    signs = np.sign(dfa.final_readout) == np.sign(dfa.feedback)
    signs = (signs | dfa.feedback.isnull()).all("unit").values[arrived(dfa)]
    run, drawn = "a run that arrived, with a draw of teacher, start and feedback", dataset.sizes["draw"]
    return [
        weakest(
            Verdict.of_share(
                "most DFA runs that arrive are at the one predicted of 2^K K! solutions (share, weakest K)",
                of_one,
                0.5,
                sample=f"{run}; {name}: {int(of_one.sum())} of {of_one.size}, of {drawn} drawn",
            )
            for name, of_one in zip(names, hits, strict=True)
        ),
        Verdict.of_share(
            "every readout ends with the signs of its feedback (share of DFA runs)", signs, 0.95, sample=run
        ),
        weakest(
            Verdict.of_mean(
                "where DFA misses the best solution it takes a good one: v·F, from 0 at a random permutation with "
                "the right signs to 1 at the best (mean, weakest K)",
                of_one,
                0.5,
                sample=f"{run}; {name}",
            )
            for name, of_one in zip(names, scores, strict=True)
        ),
    ]


def _counts(dataset: xr.Dataset) -> dict[tuple[str, int], tuple[int, int]]:
    """Return, by rule and K, how many runs are at the prediction, and how many runs arrived."""
    hits, runs = (at_prediction(dataset) & arrived(dataset)).sum("draw"), arrived(dataset).sum("draw")
    return {
        (rule, int(K)): (int(hits[r, i]), int(runs[r, i]))
        for (r, rule), (i, K) in itertools.product(enumerate(RULES), enumerate(dataset.hidden.values))
    }


def plot(dataset: xr.Dataset) -> Figure:
    """Draw the angle of readout against feedback (K = 2), the share at the prediction, and what decides a miss."""
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
    """Draw the angle of (v_1, v_2) against the angle of (F_1, F_2); if K > 2, of their first two entries."""
    feedback, predicted = dataset.feedback.values, dataset.predicted_readout.values
    angle = np.degrees(np.arctan2(feedback[:, 1], feedback[:, 0]))
    if dataset.hidden == 2:
        sizes = np.abs(predicted[0, :2])
        grid = np.linspace(-180, 180, 1441)
        F = np.stack([np.cos(np.radians(grid)), np.sin(np.radians(grid))], axis=1)
        v = np.array([shallow.selected_solution(sizes, each) for each in F])
        axes.plot(grid, np.degrees(np.arctan2(v[:, 1], v[:, 0])), color="0.6", lw=1, zorder=0, label="prediction")
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
    """Draw the share of runs at the predicted solution for every K and rule, and the share expected by chance."""
    counts, width = _counts(dataset), 0.36
    hidden = [int(K) for K in dataset.hidden]
    for rule, shift in (("dfa", -width / 2), ("backprop", width / 2)):
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
    """Draw the score of DFA runs against the ratio of the two most similar |F_k|."""
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
    """Say what the figure shows, and over how many runs."""
    left_out = "; ".join(
        f"{RULE_LABELS[rule]}, K = {K}: {dataset.sizes['draw'] - runs}"
        for (rule, K), (_, runs) in _counts(dataset).items()
    )
    return (
        "Erf students with K = M. (a) Direction of the readout after learning against the direction of the feedback; "
        "grey: the solution with the largest v·F. (b) Share of runs at the predicted solution, 95 % Wilson intervals. "
        "(c) v·F at the solution taken, on a scale from 0 (a random permutation with the right signs) to 1 (the best "
        f"solution); misses happen where two |F_k| are similar. {dataset.sizes['draw']} draws for each K and rule. "
        f"Left out, because ε_g had not fallen to {dataset.attrs['solved']:g} by the end: {left_out}."
    )
