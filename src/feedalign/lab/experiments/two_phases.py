r"""Align, then memorise: the two phases of DFA in a shallow network.

Backprop from the same start is the control. Its cosine sinks as well, from its own peak, which is low: a sink alone is
no mark of DFA. With the opposite feedback, −F, an erf student ends at the minimum with all signs reversed. A ReLU
student has no such minimum and does not learn.

Setting: K = M = 2 erf or ReLU units. The teacher's readout is (1, 1); first layers and feedback are Gaussian; for ReLU
the feedback is positive. Equal teacher weights make the second phase visible for nearly every F: the cosine of an erf
solution is Σ|F_k| / (√K |F|), which is one only where all |F_k| are equal.

Source: Refinetti et al. (2021), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.shallow_runs import QUANTITIES, distance, learns, phases
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on, weakest_of
from feedalign.lab.experiments.two_phases_job import ACTIVATIONS, RULES, SIGNS, Setting, Students
from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style
from feedalign.theory import shallow

NAME = "two-phases"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, the number of draws.

    Attributes:
        draws: independent teachers, starts and feedback vectors.
    """

    draws: int = 24


CONFIGS = {
    "quick": Config(),
    "paper": Config(end_time=2000.0, late_time=300_000.0, measurements=60, draws=40, seeds=20),
}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian
AGREEMENT = 0.05  # of cosines and relative errors: the figure's lines are two or three of their widths apart
SOLVED = 1e-5  # at this ε_g the readout is within a per cent of its minimum


def jobs(config: Config) -> list[Students]:
    """Return a job for every draw."""
    return jobs_on_grid(Students, config, draw=range(config.draws))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the draws side by side."""
    return on_grid(results, draw=config.draws).transpose("activation", "draw", ...)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test both phases against backprop, the theory against simulation, and what the opposite feedback does."""
    dims = ("activation", "rule", "draw", "seed", "time")
    error, overlap = (dataset[f"{name}_simulation"].transpose(*dims).values for name in QUANTITIES)
    early = phases(error, overlap)[0]
    # A student of DFA that learns nothing has not aligned before it learns. The control keeps what it reaches.
    early[:, 0] = np.where(learns(error[:, 0]), early[:, 0], -1.0)
    early = early.mean(axis=-1)
    theory = dataset.sel(activation="erf", rule="dfa")
    # Of the theory, because noise alone would put the peak of a simulated run above its end.
    curves = [theory[f"{name}_theory"].transpose("draw", "time").values for name in QUANTITIES]
    sink = np.where(learns(curves[0]), phases(*curves)[1], 0.0)
    final = overlap[..., -1].mean(axis=-1)
    sample = f"a draw of teacher, start and feedback; mean over {overlap.shape[3]} simulated runs"
    return [
        weakest_of(
            "DFA: the largest cos(v, F) before ε_g has halved (weaker activation)",
            dict(zip(ACTIVATIONS, early[:, 0], strict=True)), 0.95, sample=sample,
        ),
        Verdict.of_difference(
            "erf: the largest cos(v, F) before ε_g has halved, DFA minus backprop from the same start",
            early[0, 0], early[0, 1], 0.2, sample=sample,
        ),
        Verdict.of_mean(
            "erf, DFA: then cos(v, F) sinks: its peak before ε_g has halved minus its end", sink,
            sample="a draw of teacher, start and feedback, theory",
        ),
        Verdict.of_difference(
            "erf: and yet cos(v, F) ends higher under DFA than under backprop from the same start: difference",
            final[0, 0], final[0, 1], 0.2, sample=sample,
        ),
        *_agreement(dataset.sel(activation="erf")),
        *_opposite_feedback(dataset),
    ]  # fmt: skip


def _agreement(dataset: xr.Dataset) -> list[Verdict]:
    """Compare the mean simulated run with the theory: the distance of both curves, mean over times and rules."""
    runs, times = dataset.sizes["seed"], dataset.sizes["time"]
    return verdicts_on(f"a draw; mean of {runs} simulated runs, then over {times} times and both rules", {
        f"erf: the equations of N → ∞ describe {words}: mean distance of simulation and theory":
            (distance(dataset, name).mean(("rule", "time"), skipna=False), "below", AGREEMENT)
        for name, words in QUANTITIES.items()
    })  # fmt: skip


def _opposite_feedback(dataset: xr.Dataset) -> list[Verdict]:
    """Compare where the readout ends with F and with −F."""
    erf, relu = (dataset.sel(activation=activation) for activation in ACTIVATIONS)
    final = erf.late_readout.isel(late_time=-1).transpose("draw", "sign", "unit").values
    solved = (erf.late_error.isel(late_time=-1) < SOLVED).transpose("draw", "sign").values
    feedback = erf.feedback.transpose("draw", "unit").values
    expected = [[shallow.selected_solution(np.ones(len(F)), sign * F) for sign in SIGNS] for F in feedback]
    there = np.linalg.norm(final - expected, axis=-1) < 0.05
    both = solved.all(axis=1)
    learned = relu.late_error.isel(late_time=-1) / relu.late_error.isel(late_time=0)
    return [
        Verdict.of_share(
            "erf: with F and with −F the readout ends within 0.05 of the minimum with these signs (share of draws)",
            there[both].all(axis=1), 0.75,
            sample=f"a draw whose ε_g is below {SOLVED:g} under F and under −F, theory; {len(both)} were drawn",
        ),
        Verdict.of_difference(
            "relu: a student with −F does not learn what it learns with F: ε_g / ε_g(0) at the end, −F minus F",
            learned.sel(sign=-1), learned.sel(sign=1), 0.5,
            sample="a draw of teacher, start and positive feedback, theory",
        ),
    ]  # fmt: skip


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw ε_g, cos(v, F) and the path of v, one row for each activation; the first draw is drawn strongest."""
    error, overlap = r"generalisation error $\epsilon_g$", r"overlap $\cos(v, F)$"
    titles = ("learns late", "aligns early", "then gives some of it up", "where v goes")
    labels = [f"{activation}: {title}" for activation in ("erf", "ReLU") for title in titles]
    figure, every = panels(10.4, 4.9, labels, rows=len(ACTIVATIONS))
    for i, activation in enumerate(ACTIVATIONS):
        left, middle, enlarged, plane = every[4 * i : 4 * i + 4]
        of_one = dataset.sel(activation=activation)
        for axes, name in ((left, "generalisation_error"), (middle, "overlap"), (enlarged, "overlap")):
            for rule in RULES:
                _draw_rule(axes, of_one.sel(rule=rule, time=dataset.time > 0), name, rule)
            axes.set(xscale="log", xlabel="time (steps / input dimension)", ylabel=overlap)
        left.set(yscale="log", ylabel=error, ylim=(1e-5, 2))
        for axes in (middle, enlarged):
            axes.axhline(1, color="0.7", lw=0.8, zorder=0)
        _draw_plane(plane, of_one)
        enlarged.set_ylim({"erf": (0.85, 1.01), "relu": (0.4, 1.04)}[activation])
    every[0].legend()
    return figure


def _draw_plane(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the first two entries of v from start to end, with F and with −F; dots mark the ends."""
    if dataset.activation == "erf":  # the minima of ReLU are no points but whole families
        minima = shallow.global_minima(np.ones(dataset.sizes["unit"])).v
        axes.plot(minima[:, 0], minima[:, 1], "x", color="0.3", ms=7, label="minima")
    for sign, style in zip(SIGNS, ("-", "--"), strict=True):
        v = dataset.late_readout.sel(sign=sign).transpose("draw", "late_time", "unit").values
        for draw in range(len(v) - 1, -1, -1):
            axes.plot(
                v[draw, :, 0], v[draw, :, 1], style, color=RULE_COLOURS["dfa"], lw=0.7 if draw else 1.6,
                alpha=0.4 if draw else 1, label=None if draw else {1: "with F", -1: "with −F"}[sign],
            )  # fmt: skip
            axes.plot(*v[draw, -1, :2], "o", ms=3.5, color=RULE_COLOURS["dfa"], markerfacecolor="white")
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="$v_1$", ylabel="$v_2$")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.45 * (high - low))  # room for the legend
    axes.legend(loc="upper right")


def _draw_rule(axes: Axes, dataset: xr.Dataset, name: str, rule: str) -> None:
    theory, colour = dataset[f"{name}_theory"].transpose("time", "draw"), RULE_COLOURS[rule]
    axes.plot(dataset.time, theory.isel(draw=slice(1, None)), color=colour, lw=0.6, alpha=0.3)
    axes.plot(dataset.time, theory.isel(draw=0), color=colour, label=f"{RULE_LABELS[rule]}, theory")
    points = dataset[f"{name}_simulation"].isel(draw=0, time=slice(None, None, 2))
    axes.errorbar(
        points.time, points.mean("seed"), points.std("seed"), fmt="o", ms=3, lw=1, color=colour,
        markerfacecolor="white", label=f"{RULE_LABELS[rule]}, simulation",
    )  # fmt: skip


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    seeds, others = dataset.sizes["seed"], dataset.sizes["draw"] - 1
    return (
        "Networks with K = M = 2, erf above and ReLU below. Generalisation error (a, e) and overlap of readout and "
        "feedback (b, f; c and g enlarge its top). Strong lines: theory of one draw of teacher, start and feedback; "
        f"points: mean and standard deviation of {seeds} simulated runs of that draw; thin lines: theory of {others} "
        "further draws. (d, h) Theory of the readout under DFA from its start near 0 to its end (dots), with feedback "
        "F and with −F; crosses: the global minima of erf. The two ends of an erf student have opposite signs; a ReLU "
        "student with −F stays near 0. Simulated ReLU students leave plateaus a little earlier than the theory "
        "predicts, because the theory neglects fluctuations at finite N."
    )
