"""One file per claim: its configs, its jobs, how their results are put together, drawn and checked."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from feedalign.errors import ArgumentError
from feedalign.lab.experiments.catalogue import CLAIMS, DATASETS, NAMES
from feedalign.lab.experiments.common.verdict import LEVEL, Verdict, holm
from feedalign.lab.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.figure import Figure

    from feedalign.lab.runs import Job


__all__ = [
    "CLAIMS",
    "DATASETS",
    "LEVEL",
    "NAMES",
    "Experiment",
    "Verdict",
    "check_names",
    "compute",
    "get",
    "holm",
]


class Experiment(Protocol):
    """What the module of an experiment offers. `plot` never trains, and `check` never draws random numbers.

    Attributes:
        NAME: the experiment's name on the command line.
        CLAIM: what the experiment tests, in a sentence or a few.
        CONFIGS: config by preset, "quick" and "paper".
        ON_DATASET: configs by data set and preset; empty if the experiment makes its own data.
    """

    NAME: str
    CLAIM: str
    CONFIGS: dict[str, Any]
    ON_DATASET: dict[str, dict[str, Any]]

    def jobs(self, config: Any) -> Sequence[Job]:
        """Return the pieces of work that a config asks for. Each has a result of its own, whoever else needs it."""

    def gather(self, config: Any, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """Put the results of the jobs, in their order, together to the result of a config."""

    def check(self, dataset: xr.Dataset) -> list[Verdict]:
        """Test the claim against a result."""

    def plot(self, dataset: xr.Dataset) -> Figure:
        """Draw a result."""

    def caption(self, dataset: xr.Dataset) -> str:
        """Say what the figure shows, and over how many runs."""


def get(name: str) -> Experiment:
    """Return the experiment of this name, loading its module.

    Raises:
        ArgumentError: no experiment has this name; the message lists the known names.
    """
    check_names([name])
    return import_module(f"feedalign.lab.experiments.{name.replace('-', '_')}")


def compute(experiment: Experiment, config: Any, progress: Progress = lambda _done, _total: None) -> xr.Dataset:
    """Return the result of a config, computed here, one job after another, with nothing kept on disk.

    Args:
        experiment: the module of an experiment.
        config: one of its configs.
        progress: called with (done, total).
    """
    from feedalign.lab.runs import compute_job

    jobs = experiment.jobs(config)
    results = []
    for number, job in enumerate(jobs):
        results.append(compute_job(job))
        progress(number + 1, len(jobs))
    return experiment.gather(config, results)


def check_names(names: Iterable[str], dataset: str | None = None) -> None:
    """Check, without loading any experiment, that the experiments exist and take the data set.

    Args:
        names: of experiments.
        dataset: name of a data set; None stands for each experiment's own choice, which all have.

    Raises:
        ArgumentError: an experiment is unknown, or does not take the data set.
    """
    for name in names:
        if name not in CLAIMS:
            raise ArgumentError(f"no experiment is called {name!r}; expected one of {', '.join(NAMES)}")
        if dataset is not None and dataset not in DATASETS.get(name, ()):
            takes = ", ".join(DATASETS.get(name, ())) or "none, since it makes its own data"
            raise ArgumentError(f"{name} does not take --dataset {dataset}; it takes {takes}")
