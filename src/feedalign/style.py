"""One look for every figure: fonts, and one colour per learning rule that survives colour blindness and grey print."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Colour, of Okabe & Ito's palette, and label, by the names of `feedalign.rules.RULES`.
_OF_RULES = {
    "dfa": ("#D55E00", "DFA"),
    "backprop": ("#0072B2", "backprop"),
    "readout-only": ("#7A7A7A", "readout only"),
    "fa": ("#009E73", "FA"),
    "sign-symmetry": ("#56B4E9", "sign symmetry"),
    "drtp": ("#CC79A7", "DRTP"),
    "kolen-pollack": ("#B8A000", "Kolen–Pollack"),
    "direct-kolen-pollack": ("#E69F00", "direct Kolen–Pollack"),
    "conditioned-dfa": ("#8C2D04", "conditioned DFA"),
    "frozen": ("#3A3A3A", "frozen"),
}
# The same of DFA, by the kind of feedback; plain DFA has random feedback.
_OF_FEEDBACK = {
    "random": ("#D55E00", "random"),
    "channelwise": ("#009E73", "channelwise"),
    "smooth": ("#56B4E9", "smooth"),
    "optimal": ("#CC79A7", "most alignable"),
    "mask": ("#B8A000", "from connections"),
    "weights": ("0.75", "from initial weights"),
    "learned": ("#E69F00", "learned"),
    "learned, smooth": ("#8C5A00", "learned from smooth"),
}
RULE_COLOURS = {rule: colour for rule, (colour, _) in _OF_RULES.items()}
RULE_LABELS = {rule: label for rule, (_, label) in _OF_RULES.items()}
FEEDBACK_COLOURS = {kind: colour for kind, (colour, _) in _OF_FEEDBACK.items()}
FEEDBACK_LABELS = {kind: label for kind, (_, label) in _OF_FEEDBACK.items()}

_RC: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.8,  # shorter, a dashed line looks solid
    "lines.linewidth": 1.6,
    # Paths instead of fonts, and a fixed salt for the names of clip paths: the same data give the same bytes anywhere.
    "svg.fonttype": "path",
    "svg.hashsalt": "feedalign",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw and save figures within this context; a matplotlibrc file of the user's changes nothing within it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file; figures drawn from the same data give the same bytes."""
    buffer = io.BytesIO()
    with figure_style():
        FigureCanvasSVG(figure)  # whatever backend the user has chosen
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


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


def mean_and_range(axes: Axes, x: NDArray[Any], samples: NDArray[Any], **points: Any) -> None:
    """Draw the mean of samples [n, len(x)] as points, their smallest and largest values as the ends of bars."""
    mean = samples.mean(axis=0)
    reach = np.abs(np.stack([samples.min(axis=0), samples.max(axis=0)]) - mean)
    axes.errorbar(x, mean, reach, ls="", ms=4, lw=1, **points)
