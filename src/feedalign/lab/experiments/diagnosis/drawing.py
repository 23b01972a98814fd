"""A diagnosis as a figure."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from feedalign.style import figure_style, layer_colours, letter

# Okabe & Ito's palette; the colours of the rules mean something else.
MOMENTS = {"error": ("#009E73", "o", "errors"), "input_output": ("#56B4E9", "s", "inputs and outputs")}
STYLES = {"plain": "-", "conditioned": "--"}


def plot(dataset: xr.Dataset) -> Figure:
    """Draw spectra and variances before training, and alignment along it beside what was expected."""
    with figure_style():
        figure = Figure(figsize=(9.6, 2.9), layout="constrained")
        figure.suptitle(dataset.attrs["name"], fontsize=9)
        spectra, variances, alignment = figure.subplots(1, 3)
        for name, (colour, marker, label) in MOMENTS.items():
            rank = int(dataset[f"{name}_rank"])
            values = dataset[f"{name}_eigenvalue"].values[:rank]
            style = {"color": colour, "marker": marker, "ms": 4, "markerfacecolor": "white"}
            spectra.plot(np.arange(1, rank + 1), values / np.exp(np.log(values).mean()), lw=1, label=label, **style)
            variance = np.diag(dataset[f"{name}_moment"].values)
            variances.plot(variance / np.median(variance), lw=0, label=label, **style)
        spectra.set(xlabel="direction", ylabel="eigenvalue / geometric mean")
        variances.set(xlabel="output", ylabel="variance / median")
        for axes in (spectra, variances):
            _decades(axes)
            axes.axhline(1, color="0.7", lw=0.8, zorder=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        spectra.legend()
        _alignment(alignment, dataset)
        letter(spectra, "a", "spectra before training")
        letter(variances, "b", "outputs before training")
        letter(alignment, "c", "gradient alignment")
    return figure


def _decades(axes: Axes) -> None:
    """Make an axis logarithmic, and at least two decades long, so that what differs little looks so."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.1), max(high, 10))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _alignment(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw measured alignment over the steps, and what was expected at their end."""
    colours = layer_colours(dataset.sizes["hidden"])
    end = dataset.attrs["steps"]
    for hidden, colour in zip(dataset.hidden.values, colours, strict=True):
        for net in dataset.net.values:
            of_net = dataset.sel(net=net, hidden=hidden)
            sent = str(of_net.as_sent.values)
            label = f"layer {hidden}" + f", {net}" * (dataset.sizes["net"] > 1)
            axes.plot(of_net.step, of_net.gradient_alignment, ls=STYLES[sent], lw=1.2, color=colour, label=label)
        expected = float(dataset.expected_gradient_alignment.sel(sent="plain", hidden=hidden))
        axes.plot(
            [1.12 * end], [expected], "<", ms=5, color=colour, markerfacecolor="white", clip_on=False,
            label="expected, plain" if hidden == dataset.hidden.values[-1] else None,
        )  # fmt: skip
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.set(
        xlabel="steps", ylabel="mean cosine over samples", ylim=(min(-0.1, *axes.get_ylim()), 1), xlim=(0, 1.12 * end)
    )
    axes.legend(fontsize=7, loc="upper left")
