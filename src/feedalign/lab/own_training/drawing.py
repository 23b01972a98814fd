"""The figure of one run."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.panels import panels
from feedalign.style import figure_style, layer_colours

# Okabe & Ito's palette; the colours of the rules mean something else.
TRAIN, TEST, NOISY = "#56B4E9", "#009E73", "#CC79A7"


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
