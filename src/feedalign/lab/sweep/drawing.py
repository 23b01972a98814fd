"""The figure of a sweep."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.panels import panels
from feedalign.lab.sweep.words import Group, groups
from feedalign.style import RULE_COLOURS, figure_style

# (height of a row, height of titles and axes, largest height) in inches
ROW, REST, MOST = 0.24, 1.0, 40.0


def plot(dataset: xr.Dataset) -> Figure:
    """Draw accuracy, recovery and gradient alignment: a row for each setting, a point for each run, a line at the mean.

    The grey and the blue line are the controls: the readout alone, and backprop. Accuracy has them only if every run
    has the same controls.
    """
    rows = groups(dataset)
    with figure_style():
        titles = ("accuracy", "recovery", "gradients along backprop's")
        height = min(MOST, REST + ROW * len(rows))
        figure, (left, middle, right) = panels(9.6, height, titles, sharey=True)
        for axes, name, label in (
            (left, "test_accuracy", "test accuracy"),
            (middle, "recovery", "recovery: 0 readout only, 1 backprop"),
            (right, "gradient_alignment", "gradient alignment (mean over layers)"),
        ):
            for row, group in enumerate(rows):
                _draw_row(axes, row, group, name)
            axes.set_xlabel(label)
        for axes, where in ((left, _accuracies(rows)), (middle, {"readout-only": 0.0, "backprop": 1.0})):
            for rule, value in where.items():
                axes.axvline(value, color=RULE_COLOURS[rule], lw=0.8, ls=":", zorder=0)
        right.axvline(0, color="0.8", lw=0.8, zorder=0)
        left.set_yticks(range(len(rows)), [group.label for group in rows])
        left.set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _draw_row(axes: Axes, row: int, group: Group, name: str) -> None:
    values = group.runs[name].values
    known = values[~np.isnan(values)]
    colour = RULE_COLOURS[group.rule]
    if len(known):
        axes.plot([known.mean()] * 2, [row - 0.35, row + 0.35], color=colour)
        axes.plot(known, np.full(len(known), row), "o", ms=4, color=colour, alpha=0.6, mew=0)
    elif group.runs.diverged_at.notnull().all():
        axes.text(0.5, row, "diverged", transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8)


def _accuracies(rows: list[Group]) -> dict[str, float]:
    """Return the mean accuracy of each control that is one row."""
    means = dict[str, float]()
    for rule in ("readout-only", "backprop"):
        of_rule = [group for group in rows if group.rule == rule]
        if len(of_rule) == 1 and of_rule[0].runs.test_accuracy.notnull().any():
            means[rule] = float(of_rule[0].runs.test_accuracy.mean())
    return means
