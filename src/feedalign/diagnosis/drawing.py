"""A diagnosis as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from feedalign.diagnosis.result import Diagnosis
from feedalign.style import figure_style, layer_colours, letter

# Okabe & Ito's palette; the colours of the rules mean something else.
ERRORS = {"color": "#009E73", "marker": "o", "label": "errors"}
INPUTS = {"color": "#56B4E9", "marker": "s", "label": "inputs and outputs"}


def figure(found: Diagnosis) -> Figure:
    """Draw spectra and variances before training, and gradient alignment along training beside what was expected."""
    with figure_style():
        drawn = Figure(figsize=(9.6, 2.9), layout="constrained")
        drawn.suptitle(found.name, fontsize=9)
        spectra, variances, alignment = drawn.subplots(1, 3)
        for moment, style in ((found.errors, ERRORS), (found.input_output, INPUTS)):
            values = moment.spectrum.values.numpy()[: moment.spectrum.rank]
            shape = {**style, "ms": 4, "markerfacecolor": "white"}
            spectra.plot(np.arange(1, len(values) + 1), values / np.exp(np.log(values).mean()), lw=1, **shape)
            variance = np.diag(moment.matrix)
            middle = np.median(variance) if np.median(variance) > 0 else variance.max()
            variances.plot(variance / middle, lw=0, **shape)
        spectra.set(xlabel="direction", ylabel="eigenvalue / geometric mean")
        variances.set(xlabel="output", ylabel="variance / median")
        for axes in (spectra, variances):
            _decades(axes)
            axes.axhline(1, color="0.7", lw=0.8, zorder=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        spectra.legend()
        _alignment(alignment, found)
        letter(spectra, "a", "spectra before training")
        letter(variances, "b", "outputs before training")
        letter(alignment, "c", "gradient alignment")
    return drawn


def _decades(axes: Axes) -> None:
    """Make an axis logarithmic, and at least two decades long, so that small differences look small."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.1), max(high, 10))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _alignment(axes: Axes, found: Diagnosis) -> None:
    """Draw measured alignment over the steps, and behind the last step what was expected."""
    end = found.steps
    for i, colour in enumerate(layer_colours(len(found.points))):
        for name, net in found.trained.items():
            label = f"layer {found.points[i]}" + f", {name}" * (len(found.trained) > 1)
            line = "--" if net.conditioned else "-"
            axes.plot(net.steps, net.gradient_alignment[:, i], ls=line, lw=1.2, color=colour, label=label)
        axes.plot(
            [1.12 * end], [found.expected["plain"].gradient_alignment[i]], "<", ms=5, color=colour,
            markerfacecolor="white", clip_on=False,
            label="expected of DFA" if i == len(found.points) - 1 else None,
        )  # fmt: skip
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.set(
        xlabel="steps", ylabel="mean cosine over samples", ylim=(min(-0.1, *axes.get_ylim()), 1), xlim=(0, 1.12 * end)
    )
    axes.legend(fontsize=7, loc="upper left")
