"""An experiment that takes no time, in place of a real one: the tests of reproduction and report need no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import xarray as xr
from matplotlib.figure import Figure

from feedalign.errors import DivergenceError
from feedalign.lab.data import load
from feedalign.lab.experiments import Verdict
from feedalign.lab.runs import Desk, Job
from feedalign.style import figure_style

ERRORS = {
    "disk": OSError(28, "No space left on device"),
    "divergence": DivergenceError("it diverged", time=1.0, state=None),
}


@dataclass(frozen=True)
class Config:
    """Says which points of the parabola are computed; with a data set, each point also loads the data set."""

    points: int = 3
    dataset: str = ""
    first_seed: int = 0


@dataclass(frozen=True)
class Point(Job):
    """One point of a parabola. Every experiment of this file asks for these jobs, and so shares them."""

    kind: ClassVar[str] = "parabola-point"
    x: int
    dataset: str
    first_seed: int

    def compute(self, desk: Desk) -> xr.Dataset:
        if self.dataset:
            load(self.dataset)
        desk.progress(1, 2)
        return xr.Dataset({"y": float(self.x**2 + self.first_seed)})


@dataclass(frozen=True)
class Failing(Job):
    """Raises one of `ERRORS`."""

    kind: ClassVar[str] = "failing"
    error: str

    def compute(self, desk: Desk) -> xr.Dataset:
        raise ERRORS[self.error]


@dataclass
class Parabola:
    """The smallest experiment there can be."""

    NAME: str = "parabola"
    CLAIM: str = "A parabola rises <fast> & for ever."
    CONFIGS: dict[str, Any] = field(default_factory=lambda: {"quick": Config(), "paper": Config(5)})
    ON_DATASET: dict[str, dict[str, Any]] = field(default_factory=dict)

    def jobs(self, config: Config) -> list[Job]:
        return [Point(x, config.dataset, config.first_seed) for x in range(config.points)]

    def gather(self, config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
        return xr.concat(results, "x")

    def check(self, dataset: xr.Dataset) -> list[Verdict]:
        return [
            Verdict("it ends above 3", float(dataset.y[-1]), 0.123, 3.0, "above", "a draw, mean over 5 seeds", runs=7),
            Verdict("its slope stays below 5.5", 3.25, 0.0777, 5.5, "below", "a pair", runs=3),
        ]

    def plot(self, dataset: xr.Dataset) -> Figure:
        with figure_style():
            figure = Figure(figsize=(2, 2))
            axes = figure.subplots()
            axes.plot(dataset.y, label="y")
            axes.fill_between(range(dataset.sizes["x"]), dataset.y)  # matplotlib names clip paths by a salted hash
            axes.legend()
        return figure

    def caption(self, dataset: xr.Dataset) -> str:
        return f"Over {dataset.sizes['x']} points."
