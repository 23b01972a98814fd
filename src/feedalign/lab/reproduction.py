"""Run experiments, check their claims, write one report: what `feedalign reproduce` does, for Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feedalign.errors import ArgumentError
from feedalign.lab.experiments import DATASETS, NAMES, Experiment, check_names, get
from feedalign.lab.files import check_file, check_folder
from feedalign.lab.progress import Watch, unwatched
from feedalign.lab.robustness import SEED_STRIDE, Robustness, counted, merge, read

if TYPE_CHECKING:
    import xarray as xr

    from feedalign.lab.changes import Change
    from feedalign.lab.experiments import Verdict
    from feedalign.lab.report import Result
    from feedalign.lab.runs import Executor, Job


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
    changes: Mapping[str, Any] | None = None,
    seeds: int = 0,
    table: Path = Path("results/seed_robustness.csv"),
    executor: Executor | Callable[[], Executor] | None = None,
    progress: Watch = unwatched,
    finished: Callable[[Result], None] | None = None,
) -> Reproduction:
    """Run experiments, check their claims and write one report. Finished runs are read, not run again.

    Args:
        names: of experiments (`feedalign.lab.experiments.NAMES`); all of them if empty. With a data set, all that
            take a data set.
        preset: "quick" takes at most a minute for each experiment on two cores; "paper" is the full size.
        dataset: data set for experiments that take one, instead of the preset's own.
        runs: folder of the runs; made if missing.
        report: the HTML page to write; its folder is made if missing.
        changes: values by the name of a field of the experiment's config, instead of the preset's own, such as
            {"draws": 8}. For one experiment at a time. The result and the report list them.
        seeds: number of other base seeds at which each experiment is run as well. What they give is counted, added to
            `table`, and returned.
        table: CSV file of seed robustness. The report shows what the table says of the runs on the page; a table that
            does not exist says nothing.
        executor: who computes the jobs of the experiments, such as `feedalign.lab.runs.LocalWorkers(2)`, or a function
            that returns the executor and is called once the other arguments are checked; this process, one job after
            another, unless given.
        progress: called with "3 jobs"; returns a context manager that gives a function of (done, total) to be called.
        finished: called with each result as soon as its claim is checked.

    Returns:
        Results and the path of the report.

    Raises:
        ArgumentError: a name or the preset is unknown, an experiment does not take the data set, a change does
            not fit the config, `seeds` is negative, or `runs`, `report` or `table` cannot be written. Raised before
            anything is run. Also raised, at the end, if a claim cannot be judged with the changes.
        DataError: a data set is missing, or a run cannot be stored or read.
    """
    names = tuple(names) or (NAMES if dataset is None else tuple(DATASETS))
    check_names(names, dataset)
    if preset not in ("quick", "paper"):
        raise ArgumentError(f"preset={preset!r} is unknown; expected 'quick' or 'paper'")
    if seeds < 0:
        raise ArgumentError(f"seeds={seeds} is negative; expected a number of further base seeds, or 0 for none")
    _check_changes(changes, names, seeds)
    check_folder("runs", runs)
    check_file("report", report)
    check_file("table", table)
    read(table)  # a damaged table is refused before work is spent
    # Loaded only now: wrong arguments are refused without waiting for xarray and matplotlib.
    from feedalign.lab.report import write_report
    from feedalign.lab.runs import ThisProcess, run_jobs

    chosen = executor() if callable(executor) else executor or ThisProcess()
    plans = [_planned(get(name), preset, dataset, seeds, changes or {}) for name in names]
    checking = _Checking(plans, runs, table, finished)
    if jobs := checking.jobs():
        with progress(f"{len(jobs)} jobs") as told:
            run_jobs(jobs, runs, chosen, told, checking.tell)
    write_report(checking.results, report, read(table))
    return Reproduction(tuple(checking.results), report, tuple(checking.robustness))


def _check_changes(changes: Mapping[str, Any] | None, names: Sequence[str], seeds: int) -> None:
    """Refuse changes that do not belong to one experiment, or whose counts of seeds would pass for the preset's."""
    if not changes:
        return
    if len(names) != 1:
        raise ArgumentError(f"changes are for one experiment, since each has other fields; got {', '.join(names)}")
    if seeds:
        raise ArgumentError("seeds are counted for the presets as they are; leave out the changes, or the seeds")
    if "dataset" in changes:
        raise ArgumentError("the data set is no change: choose it with --dataset, which knows the sizes that fit")


class _Checking:
    """Checks experiments in their order, each as soon as its jobs are finished.

    Attributes:
        results: of the experiments that are checked so far.
        robustness: rows of these experiments; they are in the table already, so an interruption keeps what is counted.
    """

    def __init__(
        self, plans: Sequence[_Plan], runs: Path, table: Path, finished: Callable[[Result], None] | None
    ) -> None:
        self.runs, self.table, self.finished = runs, table, finished
        self.unchecked = [(plan, plan.jobs(runs)) for plan in plans]
        self.done: set[Job] = set()
        self.results: list[Result] = []
        self.robustness: list[Robustness] = []
        self.tell()

    def jobs(self) -> list[Job]:
        """Return the jobs that the experiments wait for, each once."""
        return list(dict.fromkeys(job for _, jobs in self.unchecked for job in jobs))

    def tell(self, *finished: Job) -> None:
        """Take note of jobs that are finished, and check each experiment whose turn has come."""
        self.done.update(finished)
        while self.unchecked and self.done.issuperset(self.unchecked[0][1]):
            plan, _ = self.unchecked.pop(0)
            result, rows = plan.checked(self.runs)
            if rows:
                merge(self.table, rows)
            self.results.append(result)
            self.robustness += rows
            if self.finished is not None:
                self.finished(result)


def _planned(experiment: Experiment, preset: str, dataset: str | None, seeds: int, values: Mapping[str, Any]) -> _Plan:
    """Return the plan of an experiment with other values, by the name of the field, than those of the preset."""
    from feedalign.lab.changes import changed

    presets = experiment.CONFIGS if dataset is None else experiment.ON_DATASET[dataset]
    config, changes = changed(presets[preset], values)
    configs = [replace(config, first_seed=config.first_seed + SEED_STRIDE * i) for i in range(seeds + 1)]
    return _Plan(experiment, preset, dataset, changes, configs)


@dataclass(frozen=True)
class _Plan:
    """One experiment of a reproduction.

    Attributes:
        experiment: its module.
        preset: "quick" or "paper".
        dataset: data set that was asked for; None for the preset's own.
        changes: how the config differs from the preset's.
        configs: the config that was asked for, and the same at the other base seeds.
    """

    experiment: Experiment
    preset: str
    dataset: str | None
    changes: tuple[Change, ...]
    configs: Sequence[Any]

    def jobs(self, runs: Path) -> list[Job]:
        """Return the jobs of all configs whose result is not put together yet."""
        from feedalign.lab.runs import RunStore

        missing = [config for config in self.configs if not RunStore(runs).has(self.experiment.NAME, config)]
        return [job for config in missing for job in self.experiment.jobs(config)]

    def checked(self, runs: Path) -> tuple[Result, list[Robustness]]:
        """Return the result, whose jobs are all finished, and a row for each part of its claim if seeds are asked."""
        from feedalign.lab.report import Result
        from feedalign.lab.runs import gathered

        name = self.experiment.NAME
        found = [
            gathered(name, config, self.experiment.jobs(config), partial(self.experiment.gather, config), runs)
            for config in self.configs
        ]
        command = ["feedalign", "reproduce", name, "--preset", self.preset]
        command += ["--dataset", self.dataset] if self.dataset is not None else []
        for change in self.changes:
            command += ["--set", change.option]
        checks = [self._check(run.dataset) for run in found]
        result = Result(self.experiment, found[0], checks[0], shlex.join(command), self.changes)
        if not checks[1:]:
            return result, []
        return result, counted(name, found[0].config_hash, self.preset, self.dataset, checks[1:])

    def _check(self, dataset: xr.Dataset) -> list[Verdict]:
        """Return the verdicts. A check may need values that the changes took away, and says so in words of its own."""
        try:
            return self.experiment.check(dataset)
        except (LookupError, ValueError) as error:
            if not self.changes:
                raise
            raise ArgumentError(
                f"{self.experiment.NAME} cannot be judged with {'; '.join(change.words for change in self.changes)} "
                f"({error}); keep the values that its claim speaks of"
            ) from error
