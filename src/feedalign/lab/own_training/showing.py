"""What is shown of one run: a table of its layers, sentences on how it ended, every number as CSV, and a figure."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.files import csv_text
from feedalign.lab.panels import panels
from feedalign.style import figure_style, layer_colours

# A loss that has grown by this factor has diverged, though its numbers are still finite, as bounded activations such as
# tanh keep them at any learning rate. `diagnose` has the same limit.
GROWN = 10.0
# Okabe & Ito's palette; the colours of the rules mean something else.
TRAIN, TEST, NOISY = "#56B4E9", "#009E73", "#CC79A7"


def diverged(dataset: xr.Dataset) -> bool:
    """Whether the loss left the finite numbers, or ended over ten times as large as it was before training."""
    return bool(dataset.diverged_at.notnull()) or _grown(dataset)


def _grown(dataset: xr.Dataset) -> bool:
    first, last = (float(dataset.train_loss[i]) for i in (0, -1))
    return last > first + (GROWN - 1) * abs(first)


def table(dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Return the heading and one row for each layer: gradient and weight alignment at the last measured step."""
    end = dataset.isel(step=-1)
    nothing = xr.full_like(end.layer, np.nan, dtype=float)
    measured = [end.get(name, nothing) for name in ("gradient_alignment", "weight_alignment")]
    rows = [
        [str(layer), *(number(float(values.sel(layer=layer))) for values in measured)] for layer in end.layer.values
    ]
    return ["layer", "gradient alignment", "weight alignment"], rows


def summary(dataset: xr.Dataset) -> list[str]:
    """Say in sentences how the run ended."""
    end = dataset.isel(step=-1)
    when = f"after {float(end.epoch):.4g} epochs ({int(end.step)} steps)"
    lines = []
    if _grown(dataset):
        first, last = (float(dataset.train_loss[i]) for i in (0, -1))
        lines.append(f"DIVERGED: the train loss went from {first:.4g} to {last:.4g}; give a smaller lr")
    if dataset.diverged_at.notnull():
        lines.append(
            f"DIVERGED: the loss is not finite after {int(dataset.diverged_at)} steps; give a smaller lr. The numbers "
            f"here were measured {when}"
        )
    lines.append(
        f"test accuracy {number(float(end.test_accuracy))}, train accuracy {number(float(end.train_accuracy))}, test "
        f"loss {float(end.test_loss):.4g}, train loss {float(end.train_loss):.4g} {when}"
    )
    if "noisy_accuracy" in end:
        clean, noisy = number(float(end.clean_accuracy)), number(float(end.noisy_accuracy))
        lines.append(f"train accuracy on clean labels {clean}, on labels drawn at random {noisy}")
    return lines


def number(value: float) -> str:
    """Return a number between −1 and 1 with three digits; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def csv_of(dataset: xr.Dataset) -> str:
    """Return what was measured as a CSV file, a row for each step; columns are named "quantity" or "quantity/layer"."""
    columns = {"step": dataset.step.values, "epoch": dataset.epoch.values}
    for name, values in dataset.data_vars.items():
        if values.dims == ("step",):
            columns[str(name)] = values.values
        elif values.dims == ("step", "layer"):
            columns |= {f"{name}/{layer}": values.sel(layer=layer).values for layer in dataset.layer.values}
    return csv_text(columns, zip(*(values.tolist() for values in columns.values()), strict=True))


def plot(dataset: xr.Dataset) -> Figure:
    """Draw accuracy, gradient alignment and weight alignment over epochs; time 0 is left out of the log axis."""
    after = dataset.isel(step=slice(1, None)) if dataset.sizes["step"] > 1 else dataset
    with figure_style():
        titles = ("accuracy", "gradients along backprop's", "weights along the feedback")
        figure, (left, middle, right) = panels(9.6, 2.9, titles)
        _draw_accuracy(left, after)
        _draw_layers(middle, after, "gradient_alignment")
        _draw_layers(right, after, "weight_alignment")
        for axes in (left, middle, right):
            axes.set(xscale="log", xlabel="epochs")
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
        if dataset.diverged_at.notnull():
            figure.suptitle(f"DIVERGED after {int(dataset.diverged_at)} steps", fontsize=9)
    return figure


def _draw_accuracy(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw train and test accuracy; where labels are noisy, train accuracy on clean and on noisy labels apart."""
    if "noisy_accuracy" in dataset:
        axes.plot(dataset.epoch, dataset.clean_accuracy, color=TRAIN, label="train, clean labels")
        axes.plot(dataset.epoch, dataset.noisy_accuracy, color=NOISY, label="train, random labels")
    else:
        axes.plot(dataset.epoch, dataset.train_accuracy, color=TRAIN, label="train")
    axes.plot(dataset.epoch, dataset.test_accuracy, color=TEST, label="test")
    axes.set(ylabel="accuracy", ylim=(0, 1.02))


def _draw_layers(axes: Axes, dataset: xr.Dataset, name: str) -> None:
    """Draw the cosine of every layer that has one; say so where none has."""
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(ylabel=f"{name.replace('_', ' ')} (cosine)")
    values = dataset[name] if name in dataset else xr.full_like(dataset.layer, np.nan, dtype=float)
    if values.isnull().all():
        axes.text(0.5, 0.5, "not defined for any layer", transform=axes.transAxes, ha="center", va="bottom")
        return
    for layer, colour in zip(dataset.layer.values, layer_colours(dataset.sizes["layer"]), strict=True):
        if values.sel(layer=layer).notnull().any():
            axes.plot(dataset.epoch, values.sel(layer=layer), color=colour, label=f"layer {layer}")
