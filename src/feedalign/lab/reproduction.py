"""Run experiments, check their claims, write one report: what `feedalign reproduce` does, for Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feedalign.errors import ArgumentError
from feedalign.lab.experiments import DATASETS, NAMES, Experiment, Watch, check_names, get, unwatched
from feedalign.lab.files import check_file, check_folder
from feedalign.lab.robustness import SEED_STRIDE, Robustness, counted, merge, read

if TYPE_CHECKING:
    from feedalign.lab.report import Result
    from feedalign.lab.runs import StoredRun


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found.

    Attributes:
        results: one for each experiment, in the order in which they were run: the experiment's module, its stored run
            and the verdicts on its claim.
        report: the page that shows the results.
        robustness: with `seeds`, a row for each part of each claim: at how many other base seeds it is supported.
    """

    results: tuple[Result, ...]
    report: Path
    robustness: tuple[Robustness, ...] = ()

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
    seeds: int = 0,
    table: Path = Path("results/seed_robustness.csv"),
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
        seeds: number of other base seeds at which each experiment is run as well. What they give is counted, added to
            `table`, and returned.
        table: CSV file of seed robustness. The report shows what the table says of the runs on the page; a table that
            does not exist says nothing.
        progress: called with an experiment's name, returns a context manager that is entered while the experiment
            runs; what the context manager gives is called with (done, total).
        finished: called with each result as soon as its claim is checked.

    Returns:
        Results and the path of the report.

    Raises:
        ArgumentError: a name or the preset is unknown, an experiment does not take the data set, `seeds` is negative,
            or `runs`, `report` or `table` cannot be written. Raised before anything is run.
        DataError: a data set is missing, or a run cannot be stored or read.
    """
    names = tuple(names) or (NAMES if dataset is None else tuple(DATASETS))
    check_names(names, dataset)
    if preset not in ("quick", "paper"):
        raise ArgumentError(f"preset={preset!r} is unknown; expected 'quick' or 'paper'")
    if seeds < 0:
        raise ArgumentError(f"seeds={seeds} is negative; expected a number of further base seeds, or 0 for none")
    check_folder("runs", runs)
    check_file("report", report)
    check_file("table", table)
    read(table)  # a damaged table is refused before work is spent
    # Loaded only now: wrong arguments are refused without waiting for xarray and matplotlib.
    from feedalign.lab.report import Result, write_report

    results, robustness = [], []
    for name in names:
        experiment = get(name)
        config = _config(experiment, preset, dataset)
        run = _run(experiment, config, name, runs, progress)
        command = ["feedalign", "reproduce", name, "--preset", preset]
        command += ["--dataset", dataset] if dataset is not None else []
        results.append(Result(experiment, run, experiment.check(run.dataset), shlex.join(command)))
        if finished is not None:
            finished(results[-1])
        if seeds:
            others = [replace(config, first_seed=config.first_seed + SEED_STRIDE * (i + 1)) for i in range(seeds)]
            checks = [
                experiment.check(
                    _run(experiment, other, f"{name}, base seed {other.first_seed}", runs, progress).dataset
                )
                for other in others
            ]
            rows = counted(name, run.config_hash, preset, dataset, checks)
            merge(table, rows)  # at once: an interruption keeps what is counted
            robustness += rows
    write_report(results, report, read(table))
    return Reproduction(tuple(results), report, tuple(robustness))


def _run(experiment: Experiment, config: Any, label: str, runs: Path, progress: Watch) -> StoredRun:
    """Return the run of this config, computed unless `runs` holds it; progress is told under the label."""
    from feedalign.lab.runs import run_once

    with progress(label) as tell:
        return run_once(experiment.NAME, config, partial(experiment.run, config, tell), runs)


def _config(experiment: Experiment, preset: str, dataset: str | None) -> Any:
    return (experiment.CONFIGS if dataset is None else experiment.ON_DATASET[dataset])[preset]
