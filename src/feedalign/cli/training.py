"""`feedalign train`: arguments and printing only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    out.print(f"result.nc, metrics.csv, figure.svg and the trained network are in {run.folder}", markup=False)
    return 1 if own_training.diverged(run.dataset) else 0
