"""`feedalign diagnose`: everything but arguments and printing."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from feedalign.diagnosis import Diagnosis, check_numbers, diagnose, seeded
from feedalign.errors import ArgumentError
from feedalign.lab.diagnose_command.data_set import subject_of
from feedalign.lab.diagnose_command.own_model import made_by
from feedalign.lab.diagnose_command.subject import Subject
from feedalign.lab.files import check_folder, write_file
from feedalign.lab.options import DiagnoseConfig
from feedalign.lab.own_code import at_home
from feedalign.lab.progress import Progress, Watch, unwatched
from feedalign.lab.recipes import recipe_of
from feedalign.lab.runs import run_once
from feedalign.rules import Wrapped
from feedalign.style import svg

NAME = "diagnose"
# What only a data set's own network and batches are made from.
OF_DATASETS = ("repeat", "hidden", "activation", "batch_size")


@dataclass(frozen=True)
class Identity:
    """What decides a result: the config, and a digest of the code, the model and the data."""

    config: DiagnoseConfig
    digest: str


def compute(config: DiagnoseConfig, runs: Path = Path("runs"), progress: Watch = unwatched) -> tuple[Diagnosis, Path]:
    """Diagnose, unless `runs` holds the result of the same config, code, model and data already.

    Args:
        config: what to diagnose, and how.
        runs: folder of the runs; made if missing.
        progress: called with "diagnose"; returns a context manager that gives a function of (done, total) to be called.

    Returns:
        What was found, and the folder of the run, which holds figure.svg and result.nc.

    Raises:
        ArgumentError: a value is out of range, what the user gave cannot be diagnosed, or `runs` cannot be written.
        DataError: the data set was not fetched or is damaged, or the run cannot be stored or read.
    """
    numbers = {name: getattr(config, name) for name in ("seed", "steps", "lr", "samples", "probe")}
    check_numbers(**numbers)
    _check_kind(config)
    check_folder("runs", runs)
    home = nullcontext if config.model is None else at_home
    with home(), seeded(config.seed):
        subject = subject_of(config) if config.model is None else made_by(config.model, config.points)
    with progress(NAME) as tell, home():
        with seeded(config.seed):
            identity = Identity(config, subject.digest(config.steps, max(config.samples, config.probe)))
        run = run_once(NAME, identity, lambda: _diagnosed(subject, config, numbers, tell), runs)
    found = Diagnosis.from_dataset(run.dataset)
    write_file(run.folder / "figure.svg", svg(found.figure()))
    return found, run.folder


def _diagnosed(subject: Subject, config: DiagnoseConfig, numbers: dict[str, Any], progress: Progress) -> xr.Dataset:
    wrapped = isinstance(subject.model, Wrapped)
    if wrapped and config.feedback != DiagnoseConfig.feedback:
        raise ArgumentError("the model is wrapped already; --feedback is for a bare one")
    return diagnose(
        subject.model,
        subject.loss_fn,
        subject.batches,
        points=subject.points,
        feedback=None if wrapped else recipe_of(config.feedback, None),
        compare=config.compare and not wrapped,
        name=subject.name,
        progress=progress,
        **numbers,
    ).to_dataset()


def _check_kind(config: DiagnoseConfig) -> None:
    """Refuse options of a data set for a model, and the other way round."""
    if config.model is None and config.points:
        raise ArgumentError("points is for a model of your own; those of a data set's network are its hidden layers")
    if config.model is not None and config.dataset is not None:
        raise ArgumentError(f"got dataset={config.dataset!r} and model={config.model!r}; give one of them")
    for name in OF_DATASETS if config.model is not None else ():
        if getattr(config, name) != getattr(DiagnoseConfig, name):
            raise ArgumentError(f"{name} is for a data set; with --model the function makes network and batches")
