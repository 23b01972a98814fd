"""What is shown of a sweep: every run as CSV, the means over seeds as text, and a figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.files import csv_text
from feedalign.lab.panels import panels
from feedalign.lab.sweep.grid import SEEDS
from feedalign.style import RULE_COLOURS, figure_style

SHOWN = ("test_accuracy", "train_accuracy", "recovery", "gradient_alignment", "weight_alignment")
# (height of a row, height of titles and axes, largest height) in inches
ROW, REST, MOST = 0.24, 1.0, 40.0


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in their seeds alone.

    Attributes:
        rule: their rule.
        values: by key of the grid, without the rule and the seeds.
        runs: their rows of the data set.
    """

    rule: str
    values: dict[str, str]
    runs: xr.Dataset

    @property
    def label(self) -> str:
        """The rule and the values in one line."""
        return ", ".join([self.rule, *(f"{name} {value}" for name, value in self.values.items() if value != "–")])


def keys_of(dataset: xr.Dataset) -> list[str]:
    """Return the keys of the grid besides the rule, in order."""
    return [str(name).removeprefix("grid_") for name in dataset.coords if str(name).startswith("grid_")]


def groups(dataset: xr.Dataset) -> list[Group]:
    """Return the runs of a sweep in groups that differ in their seeds alone, in the order of the grid."""
    names = [name for name in keys_of(dataset) if name not in SEEDS]
    found = dict[tuple[str, ...], list[int]]()
    for i in range(dataset.sizes["run"]):
        row = dataset.isel(run=i)
        key = (str(row.rule.item()), *(str(row[f"grid_{name}"].item()) for name in names))
        found.setdefault(key, []).append(i)
    return [Group(key[0], dict(zip(names, key[1:], strict=True)), dataset.isel(run=i)) for key, i in found.items()]


def table(dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Return heading and rows of the printed table: mean ± standard deviation over the runs of each group.

    Runs that diverged are in no mean, and "1 of 2" runs says so.
    """
    found = groups(dataset)
    keys = list(found[0].values)
    rows = [
        [group.rule, *group.values.values(), _count(group.runs), *(_mean(group.runs[name]) for name in SHOWN)]
        for group in found
    ]
    return ["rule", *keys, "runs", *(name.replace("_", " ") for name in SHOWN)], rows


def summary(dataset: xr.Dataset) -> list[str]:
    """Say what the table cannot show: runs that diverged, and controls between which there is nothing to recover."""
    lines = []
    if diverged(dataset):
        gone = dataset.isel(run=np.flatnonzero(dataset.diverged_at.notnull()))
        lines.append(
            f"{gone.sizes['run']} of {dataset.sizes['run']} runs DIVERGED and are in no mean: "
            f"{', '.join(f'train/{name}' for name in gone.folder.values[:5])}{' …' if gone.sizes['run'] > 5 else ''}"
        )
    if bool((dataset.recovery.isnull() & dataset.diverged_at.isnull()).any()):
        lines.append("no recovery is given where backprop is no better than the readout alone, or a control diverged")
    return lines


def diverged(dataset: xr.Dataset) -> bool:
    """Whether any run diverged."""
    return bool(dataset.diverged_at.notnull().any())


def csv_of(dataset: xr.Dataset) -> str:
    """Return every run as a row of a CSV file."""
    keys = keys_of(dataset)
    numbers = [*SHOWN, "test_loss", "train_loss", "diverged_at"]
    columns = ["rule", *(f"grid_{name}" for name in keys), *numbers, "is_control", "folder"]
    rows = zip(*(dataset[name].values.tolist() for name in columns), strict=True)
    return csv_text(["rule", *keys, *numbers, "is_control", "folder"], rows)


def _count(runs: xr.Dataset) -> str:
    left = int(runs.diverged_at.isnull().sum())
    return f"{left}" if left == runs.sizes["run"] else f"{left} of {runs.sizes['run']}"


def _mean(values: xr.DataArray) -> str:
    known = values.values[~np.isnan(values.values)]
    if not len(known):
        return "–"
    return f"{known.mean():.3f}" + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")


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
