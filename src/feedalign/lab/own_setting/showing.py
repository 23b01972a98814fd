"""What is shown of one setting of the shallow theory: a table over time, sentences on how it ended, and a figure."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style
from feedalign.theory import shallow

ACTIVATION_LABELS = {"erf": "erf", "relu": "ReLU", "linear": "linear"}


def diverged(dataset: xr.Dataset) -> bool:
    """Whether theory or simulation diverged under any rule."""
    return bool(dataset.diverged.any() or dataset.simulation_diverged_at.notnull().any())


def table(dataset: xr.Dataset, rows: int = 10) -> tuple[list[str], list[list[str]]]:
    """Return the heading and some rows, evenly spread over the times, of ε_g and cos(v, F) in theory, for each rule."""
    heading, columns = ["time"], [[f"{time:.4g}" for time in dataset.time.values]]
    for name, label in (("generalisation_error", "ε_g"), ("overlap", "cos(v, F)")):
        for rule in dataset.rule.values:
            heading.append(f"{label} {RULE_LABELS[rule]}")
            values = dataset[f"{name}_theory"].sel(rule=rule).values
            columns.append(["–" if np.isnan(value) else f"{value:.4g}" for value in values])
    chosen = np.unique(np.linspace(0, dataset.sizes["time"] - 1, rows).round().astype(int))
    return heading, [[column[i] for column in columns] for i in chosen]


def summary(dataset: xr.Dataset) -> list[str]:
    """Say in sentences what happened, and what the solutions' theory makes of it."""
    activation, A, F = dataset.attrs["activation"], dataset.A.values, dataset.feedback.values
    K, M = dataset.sizes["student"], dataset.sizes["teacher"]
    lines = [f"teacher readout A = {_vector(A)}, feedback F = {_vector(F)}"]
    for rule in dataset.rule.values:
        of_rule = dataset.sel(rule=rule)
        end, label = f"t = {float(of_rule.ended_at):.4g}", RULE_LABELS[rule]
        if of_rule.diverged:
            lines.append(f"{label}: DIVERGED at {end}; the last finite state is kept; lower --lr or --end-time")
            continue
        if not np.isnan(of_rule.simulation_diverged_at):
            lines.append(f"{label}: a simulated run DIVERGED at t = {float(of_rule.simulation_diverged_at):.4g}")
        overlap = of_rule.overlap_theory.values
        sentence = f"{label}: ends at {end} with v = {_vector(of_rule.last_v.values)}"
        if not np.isnan(overlap).all():
            peak = int(np.nanargmax(overlap))
            sentence += f"; cos(v, F) peaks at {overlap[peak]:.3f}, t = {float(dataset.time[peak]):.3g}"
        lines.append(sentence)
        if dataset.sizes["seed"] and np.isnan(of_rule.simulation_diverged_at):
            finals = [of_rule[f"{name}_simulation"].isel(time=-1) for name in ("generalisation_error", "overlap")]
            error, cosine = (f"{float(runs.mean()):.3g} ± {float(runs.std()):.1g}" for runs in finals)
            lines.append(f"{label}: {dataset.sizes['seed']} simulated runs end at ε_g = {error}, cos(v, F) = {cosine}")
        if K == M and activation != "linear":
            state = shallow.OrderParameters(
                Q=of_rule.last_Q.values, R=of_rule.last_R.values, T=dataset.T.values, v=of_rule.last_v.values, A=A
            )
            minimum, distance = shallow.nearest_minimum(state, activation)
            lines.append(f"{label}: nearest global minimum has v = {_vector(minimum.v)}, distance {distance:.2g}")
    if activation == "erf" and K == M:
        largest = _vector(shallow.selected_solution(A, F))
        lines.append(
            f"DFA is expected at v = {largest}, the minimum with the largest v·F"
            if K <= 2
            else f"the minimum with the largest v·F has v = {largest}; with more than two units DFA often takes "
            "another order of the units, which shallow.predicted_minimum predicts from small starts"
        )
    if activation == "relu":
        can = "can" if shallow.can_recover(A, F) else "cannot"
        lines.append(
            f"signs: F has {(F > 0).sum()} positive and {(F < 0).sum()} negative entries, A {(A > 0).sum()} and "
            f"{(A < 0).sum()}: DFA {can} learn this teacher"
        )
    if activation == "linear":
        lines.append("a linear student has no isolated minima")
    return lines


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"


def plot(dataset: xr.Dataset) -> Figure:
    """Draw ε_g and cos(v, F) over time: theory as lines, the simulation's mean and standard deviation as points."""
    K, M = dataset.sizes["student"], dataset.sizes["teacher"]
    after = dataset.isel(time=slice(1, None))
    with figure_style():
        of_students = f"{ACTIVATION_LABELS[dataset.attrs['activation']]}, K = {K}, M = {M}"
        figure, (left, right) = panels(6.6, 2.8, (of_students, "readout and feedback"))
        for axes, name in ((left, "generalisation_error"), (right, "overlap")):
            for rule in dataset.rule.values:
                _draw_rule(axes, after.sel(rule=rule), name, rule)
            axes.set(xscale="log", xlabel="time (steps / input dimension)")
        left.set_ylabel(r"generalisation error $\epsilon_g$")
        right.set_ylabel(r"overlap $\cos(v, F)$")
        if after.generalisation_error_theory.notnull().any():  # a log axis needs something to show
            left.set_yscale("log")
        left.legend()
        right.axhline(1, color="0.7", lw=0.8, zorder=0)
    return figure


def _draw_rule(axes: Axes, dataset: xr.Dataset, name: str, rule: str) -> None:
    """Draw theory [time] and simulated runs [seed, time] of one quantity under one rule."""
    colour = RULE_COLOURS[rule]
    axes.plot(dataset.time, dataset[f"{name}_theory"], color=colour, label=f"{RULE_LABELS[rule]}, theory")
    runs = dataset[f"{name}_simulation"].isel(time=slice(None, None, 2))
    if runs.sizes["seed"]:
        axes.errorbar(
            runs.time, runs.mean("seed"), runs.std("seed"), fmt="o", ms=3, lw=1, color=colour,
            markerfacecolor="white", label=f"{RULE_LABELS[rule]}, {runs.sizes['seed']} simulated runs",
        )  # fmt: skip
