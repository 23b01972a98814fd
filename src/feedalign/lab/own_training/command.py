"""`feedalign train`: everything but arguments and printing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from feedalign.lab.files import check_folder
from feedalign.lab.options import TrainConfig
from feedalign.lab.own_training.checking import check_values, refuse_unused, resolved
from feedalign.lab.own_training.job import Run
from feedalign.lab.own_training.learner import prepared, try_out
from feedalign.lab.own_training.samples import digest_of_file, samples_of
from feedalign.lab.progress import Watch, unwatched
from feedalign.lab.runs import StoredRun, ThisProcess, run_jobs

# What does not decide whether network, rule and data fit together: runs that differ in this alone are tried out once.
NO_MATTER = (
    "label_noise", "feedback_lr", "feedback_decay", "optimizer", "lr", "momentum", "weight_decay", "schedule", "epochs",
    "seed_feedback", "seed_data", "measurements", "probe",
)  # fmt: skip


def run_of(config: TrainConfig, tried: dict[tuple[TrainConfig, str], str] | None = None) -> Run:
    """Return the job of a config, after the config was tried out on one batch.

    Args:
        config: what to train, and how.
        tried: what the same command has tried out before; it gets what is tried out now.

    Raises:
        ArgumentError: a value is wrong, or things do not fit together; says what to do.
        DataError: the data set was not fetched, or is damaged.
    """
    config = resolved(check_values(config))
    refuse_unused(config)
    data = digest_of_file(config.dataset)
    tried = {} if tried is None else tried
    alike = replace(config, **{name: getattr(resolved(TrainConfig()), name) for name in NO_MATTER})
    alike = alike if ":" in config.network else replace(alike, seed_weights=0)
    if (alike, data) not in tried:
        with prepared(config):
            samples = samples_of(config, data)
        tried[alike, data] = try_out(config, samples)
    return Run(config, data, tried[alike, data])


def compute(config: TrainConfig, runs: Path = Path("runs"), progress: Watch = unwatched) -> StoredRun:
    """Train, unless `runs` holds the finished run already; an interrupted run goes on from its last checkpoint.

    Args:
        config: what to train, and how.
        runs: folder of the runs; made if missing. The run lies in `runs/train/<hash of the resolved config>`.
        progress: called with "train"; returns a context manager that gives a function of (done, total) to be called.

    Returns:
        The run. Beside result.nc its folder holds config.toml, metrics.csv, figure.svg and, unless the run diverged,
        network.safetensors: the state of the network in its rule, the feedback with it.

    Raises:
        ArgumentError: a value is wrong, or things do not fit together. Raised before any work.
        DataError: the data set was not fetched or is damaged, or the run cannot be stored or read.
    """
    check_folder("runs", runs)
    job = run_of(config)
    with progress("train") as tell:
        (run,) = run_jobs([job], runs, ThisProcess(), tell)
    return run
