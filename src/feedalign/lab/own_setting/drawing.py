"""The figure of one setting of the shallow theory."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style

ACTIVATION_LABELS = {"erf": "erf", "relu": "ReLU", "linear": "linear"}


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
