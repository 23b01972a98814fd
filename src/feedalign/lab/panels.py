"""An empty figure, whose panels have letters and titles."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.style import letter


def panels(width: float, height: float, titles: Sequence[str], rows: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row; called within `figure_style`.

    Args:
        width: of the figure, in inches.
        height: of the figure, in inches.
        titles: of the panels, row by row; all rows have the same number of panels.
        rows: number of rows.
        **grid: other arguments of `Figure.subplots`, such as width_ratios.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    every = list(figure.subplots(rows, len(titles) // rows, squeeze=False, **grid).flat)
    for axes, text, title in zip(every, ascii_lowercase, titles, strict=False):
        letter(axes, text, title)
    return figure, every
