"""One look for every figure: fonts, and one colour per learning rule that survives colour blindness and grey print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

# Okabe & Ito's palette.
RULE_COLOURS = {"dfa": "#D55E00", "bp": "#0072B2", "readout": "#7A7A7A"}
RULE_LABELS = {"dfa": "DFA", "bp": "backprop", "readout": "readout only"}
# Of DFA by its feedback; random feedback is plain DFA's.
FEEDBACK_COLOURS = {
    "random": RULE_COLOURS["dfa"],
    "channelwise": "#009E73",
    "smooth": "#56B4E9",
    "optimal": "#CC79A7",
    "mask": "#B8A000",
    "weights": "0.75",
    "learned": "#E69F00",
    "learned, smooth": "#8C5A00",
}
FEEDBACK_LABELS = {
    "random": "random",
    "channelwise": "channelwise",
    "smooth": "smooth",
    "optimal": "most alignable",
    "mask": "from connections",
    "weights": "from initial weights",
    "learned": "learned",
    "learned, smooth": "learned from smooth",
}

_RC: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw within this context."""
    with mpl.rc_context(_RC):
        yield


def layer_colours(layers: int) -> list[tuple[float, ...]]:
    """Return one colour a layer, dark at the bottom of the network, light at the top."""
    return [tuple(colour) for colour in mpl.colormaps["viridis"](np.linspace(0.05, 0.85, layers))]


def letter(axes: Axes, text: str, title: str) -> None:
    """Name a panel."""
    axes.set_title(f"$\\bf{{{text}}}$  {title}")


def band(axes: Axes, x: NDArray[Any], samples: NDArray[Any], **line: Any) -> None:
    """Draw the mean of samples [n, len(x)] as a line, one standard deviation to each side as a band."""
    mean, std = np.nanmean(samples, axis=0), np.nanstd(samples, axis=0)
    (drawn,) = axes.plot(x, mean, **line)
    axes.fill_between(x, mean - std, mean + std, color=drawn.get_color(), alpha=0.2, linewidth=0)
