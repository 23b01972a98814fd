"""`feedalign train` and `feedalign sweep`: arguments and printing only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import lazy_loader

from feedalign.cli.printing import out, progress, show_table
from feedalign.errors import ArgumentError
from feedalign.lab.own_training import TrainConfig

if TYPE_CHECKING:
    import tyro
else:
    tyro = lazy_loader.load("tyro")  # see `commands`


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
        return _train(config, runs)

    return train


def _train(config: TrainConfig, runs: Path) -> int:
    from feedalign.lab import own_training

    run = own_training.compute(config, runs, progress)
    show_table(*own_training.table(run.dataset))
    for line in own_training.summary(run.dataset):
        out.print(line, markup=False)
    diverged = own_training.diverged(run.dataset)
    broken = run.dataset.diverged_at.notnull()  # then there is no network
    kept = "metrics.csv and figure.svg" if broken else "metrics.csv, figure.svg and the trained network"
    out.print(f"result.nc, {kept} are in {run.folder}", markup=False)
    return 1 if diverged else 0


def sweep(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")],
    *,
    runs: Path = Path("runs"),
    workers: int = 2,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> int:
    """Train a grid of networks beside their controls: one table, one figure. Finished runs are not run again.

    Args:
        file: a TOML file with a table [train], what the runs have in common, and a table [grid], lists of values by
            key. Backprop and the readout alone are added by themselves.
        runs: folder of the runs.
        workers: number of local processes that compute; 1 computes in this process.
        executor: local processes, or Ray, which starts here or joins a cluster (needs the extra feedalign[cluster]).
        address: of a Ray cluster, such as auto or ray://HOST:10001; one is started on this machine unless given.
    """
    from feedalign.lab import runs as stored
    from feedalign.lab import sweep as sweeps

    chosen = stored.chosen_executor(executor, workers, address)
    found = sweeps.compute(sweeps.sweep_of(file), runs, chosen, progress)
    show_table(*sweeps.table(found.dataset))
    for line in sweeps.summary(found.dataset):
        out.print(line, markup=False)
    out.print(f"table.csv, figure.svg and result.nc are in {found.folder}", markup=False)
    return 1 if sweeps.diverged(found.dataset) else 0
