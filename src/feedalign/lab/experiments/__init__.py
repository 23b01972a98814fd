"""One file per claim: its configs, how it is run, drawn and checked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import lazy_loader

from feedalign.errors import ArgumentError
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.theory_config import TheoryConfig
from feedalign.lab.experiments.verdict import Verdict

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from feedalign.lab.experiments import theory_run

__all__ = [
    "NAMES",
    "Experiment",
    "Progress",
    "TheoryConfig",
    "Verdict",
    "get",
    "theory_run",
]

# The command line reads the configs before it knows whether anything will be computed.
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submodules=["theory_run"])

# In the order of a report; imported when asked for.
NAMES = (
    "two-phases",
    "degeneracy-breaking",
    "relu-recovery",
    "overparametrisation",
    "alignment-matrices",
    "output-statistics",
    "conditioned-feedback",
    "layerwise",
    "convolution",
    "sharing",
)


class Experiment(Protocol):
    """What a module of this room gives. Plots never train; a check never draws.

    Attributes:
        NAME: as it is called on the command line.
        CLAIM: what it is to show, in a sentence.
        CONFIGS: config by preset, "quick" and "paper".
        ON_DATASET: configs by data set and preset; empty if the experiment makes its own data.
    """

    NAME: str
    CLAIM: str
    CONFIGS: dict[str, Any]
    ON_DATASET: dict[str, dict[str, Any]]

    def run(self, config: Any, progress: Progress) -> xr.Dataset:
        """Compute the result of a config."""

    def check(self, dataset: xr.Dataset) -> list[Verdict]:
        """Hold the claim against a result."""

    def plot(self, dataset: xr.Dataset) -> Figure:
        """Draw a result."""

    def caption(self, dataset: xr.Dataset) -> str:
        """Say what the figure shows, and over how many runs."""


def get(name: str) -> Experiment:
    """Return an experiment by name; ArgumentError lists the known ones."""
    if name not in NAMES:
        raise ArgumentError(f"no experiment is called {name!r}; expected one of {', '.join(NAMES)}")
    return import_module(f"feedalign.lab.experiments.{name.replace('-', '_')}")
