"""`feedalign diagnose`: everything but arguments and printing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from feedalign import feedback
from feedalign.checks import positive_number, whole_number
from feedalign.diagnosis import Batches, Diagnosis, diagnose, seeded
from feedalign.errors import ArgumentError, DataError
from feedalign.lab.diagnose_command.config import DiagnoseConfig
from feedalign.lab.diagnose_command.data_set import model_and_batches
from feedalign.lab.diagnose_command.digest import batches_that_matter, digest_of
from feedalign.lab.diagnose_command.own_model import at_home, made_by, sources
from feedalign.lab.runs import run_once
from feedalign.rules import Wrapped

NAME = "diagnose"
RECIPES: dict[str, Any] = {
    "gaussian": feedback.Gaussian,
    "uniform": feedback.Uniform,
    "orthogonal": feedback.Orthogonal,
    "rademacher": feedback.Rademacher,
    "channelwise": feedback.Channelwise,
    "smooth": feedback.Smooth,
}
# What only a data set's own network and batches are made from.
OF_DATASETS = ("repeat", "hidden", "activation", "batch_size")


@dataclass(frozen=True)
class Identity:
    """What decides a result: the config, and a digest of the code, the model and the data."""

    config: DiagnoseConfig
    digest: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """A diagnosis whose arguments were checked, and whose model and data are there.

    Attributes:
        config: as it was asked for.
        name: of what is diagnosed.
        model: wrapped in a rule or bare.
        loss_fn: scalar loss of (output, y).
        batches: pairs (x, y).
        points: names, or "auto".
        runs: folder of the runs.
    """

    config: DiagnoseConfig
    name: str
    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batches: Any
    points: str | tuple[str, ...]
    runs: Path

    def run(self, progress: Callable[[int, int], None]) -> tuple[Diagnosis, Path]:
        """Diagnose, or take the result of the same run from its folder; write figure.svg and result.nc.

        Returns:
            What was found, and the folder.

        Raises:
            ArgumentError: what the user gave cannot be diagnosed; says why.
            DataError: the folder cannot be written, or holds no finished run.
        """
        with self._home():
            run = run_once(NAME, self._identity(), lambda: self._diagnosed(progress).to_dataset(), self.runs)
        found = Diagnosis.from_dataset(run.dataset)
        try:
            found.figure().savefig(run.folder / "figure.svg", metadata={"Date": None})
        except OSError as error:
            raise DataError(f"cannot write {run.folder / 'figure.svg'} ({error}); choose another folder") from error
        return found, run.folder

    def _home(self) -> AbstractContextManager[None]:
        return nullcontext() if self.config.model is None else at_home()

    def _diagnosed(self, progress: Callable[[int, int], None]) -> Diagnosis:
        config = self.config
        wrapped = isinstance(self.model, Wrapped)
        if wrapped and config.feedback != DiagnoseConfig.feedback:
            raise ArgumentError("the model is wrapped already; --feedback is for a bare one")
        return diagnose(
            self.model,
            self.loss_fn,
            self.batches,
            points=self.points,
            feedback=None if wrapped else RECIPES[config.feedback](),
            seed=config.seed,
            compare=config.compare and not wrapped,
            steps=config.steps,
            lr=config.lr,
            samples=config.samples,
            probe=config.probe,
            name=self.name,
            progress=progress,
        )

    def _identity(self) -> Identity:
        config = self.config
        code = [] if config.model is None else sources(config.model)
        with seeded(config.seed):
            read = batches_that_matter(Batches(self.batches), config.steps, max(config.samples, config.probe))
            return Identity(config, digest_of(code, self.model, self.loss_fn, read))


def prepared(config: DiagnoseConfig, runs: Path) -> Prepared:
    """Return the model and the data of a config, before any work is done.

    Raises:
        ArgumentError: a value is out of range, or the user's function cannot be used; says why.
        DataError: the data set was not fetched or is damaged, or nothing can be written into `runs`.
    """
    _check(config)
    check_writable(runs)
    if config.model is None:
        name, model, batches = model_and_batches(config)
        return Prepared(config, name, model, functional.cross_entropy, batches, "auto", runs)
    with at_home(), seeded(config.seed):
        own = made_by(config.model)
    points = config.points or own.points or "auto"
    return Prepared(config, config.model, own.model, own.loss_fn, own.batches, points, runs)


def _check(config: DiagnoseConfig) -> None:
    """Refuse what can be refused without data or model."""
    for name, least in {"steps": 1, "batch_size": 1, "samples": 1, "probe": 1, "seed": 0}.items():
        whole_number(name, getattr(config, name), at_least=least, at_most=2**64 - 1 if name == "seed" else None)
    positive_number("lr", config.lr)
    if config.model is None:
        if config.points:
            raise ArgumentError(
                "points is for a model of your own; those of a data set's network are its hidden layers"
            )
        return
    if config.dataset is not None:
        raise ArgumentError(f"got dataset={config.dataset!r} and model={config.model!r}; give one of them")
    for name in OF_DATASETS:
        if getattr(config, name) != getattr(DiagnoseConfig(), name):
            raise ArgumentError(f"{name} is for a data set; with --model the function makes network and batches")


def check_writable(folder: Path) -> None:
    """Raise DataError unless a folder can be made or written at this path; leave nothing behind."""
    try:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryDirectory(prefix=".feedalign-", dir=existing):
            pass
    except OSError as error:
        raise DataError(f"cannot write into {folder} ({error.strerror}); choose another folder") from error
