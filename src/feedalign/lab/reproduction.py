"""Run experiments, check their claims, write one report: what `feedalign reproduce` does, for Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feedalign.errors import ArgumentError
from feedalign.lab.experiments import DATASETS, NAMES, Experiment, Watch, check_names, get, unwatched
from feedalign.lab.files import check_file, check_folder

if TYPE_CHECKING:
    from feedalign.lab.report import Result


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found.

    Attributes:
        results: one for each experiment, in the order in which they were run: the experiment's module, its stored run
            and the verdicts on its claim.
        report: the page that shows the results.
    """

    results: tuple[Result, ...]
    report: Path

    @property
    def supported(self) -> int:
        """How many of the experiments have every part of their claim supported."""
        return sum(result.supported for result in self.results)


def reproduce(
    names: Iterable[str] = (),
    preset: Literal["quick", "paper"] = "quick",
    dataset: str | None = None,
    runs: Path = Path("runs"),
    report: Path = Path("feedalign-report.html"),
    *,
    progress: Watch = unwatched,
    finished: Callable[[Result], None] | None = None,
) -> Reproduction:
    """Run experiments, check their claims and write one report. Finished runs are read, not run again.

    Args:
        names: of experiments (`feedalign.lab.experiments.NAMES`); all of them if empty. With a data set, all that
            take a data set.
        preset: "quick" takes at most a minute for each experiment on two cores; "paper" is the full size.
        dataset: data set for experiments that take one ("digits", "mnist", "cifar10"), instead of the preset's own.
        runs: folder of the runs; made if missing.
        report: the HTML page to write; its folder is made if missing.
        progress: called with an experiment's name, returns a context manager that is entered while the experiment
            runs; what the context manager gives is called with (done, total).
        finished: called with each result as soon as its claim is checked.

    Returns:
        Results and the path of the report.

    Raises:
        ArgumentError: a name or the preset is unknown, an experiment does not take the data set, or `runs` or
            `report` cannot be written. Raised before anything is run.
        DataError: a data set is missing, or a run cannot be stored or read.
    """
    names = tuple(names) or (NAMES if dataset is None else tuple(DATASETS))
    check_names(names, dataset)
    if preset not in ("quick", "paper"):
        raise ArgumentError(f"preset={preset!r} is unknown; expected 'quick' or 'paper'")
    check_folder("runs", runs)
    check_file("report", report)
    # Loaded only now: wrong arguments are refused without waiting for xarray and matplotlib.
    from feedalign.lab.report import Result, write_report
    from feedalign.lab.runs import run_once

    results = []
    for name in names:
        experiment = get(name)
        config = _config(experiment, preset, dataset)
        with progress(name) as tell:
            run = run_once(name, config, partial(experiment.run, config, tell), runs)
        command = ["feedalign", "reproduce", name, "--preset", preset]
        command += ["--dataset", dataset] if dataset is not None else []
        results.append(Result(experiment, run, experiment.check(run.dataset), shlex.join(command)))
        if finished is not None:
            finished(results[-1])
    write_report(results, report)
    return Reproduction(tuple(results), report)


def _config(experiment: Experiment, preset: str, dataset: str | None) -> Any:
    return (experiment.CONFIGS if dataset is None else experiment.ON_DATASET[dataset])[preset]
