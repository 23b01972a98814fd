"""How long trainings will take, from a short measurement of their steps on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from feedalign.lab.experiments.common.ensemble_training import EnsembleTraining
from feedalign.lab.experiments.common.sampling import image_sample
from feedalign.lab.runs import Checkpoints, Desk
from feedalign.lab.training import steps_per_epoch

TOLD = 100  # steps between two reports of a training's progress


class Pace(NamedTuple):
    """Seconds of this machine.

    Attributes:
        step: of one step of training.
        measurement: of one measurement.
    """

    step: float
    measurement: float


class Projection(NamedTuple):
    """What a number of trainings will take, one after another on one core.

    Attributes:
        trainings: how many.
        steps: of all of them.
        seconds: of all of them, measurements included.
        measuring: share of the seconds that goes into measurements.
    """

    trainings: int
    steps: int
    seconds: float
    measuring: float


def images_of(job: EnsembleTraining) -> int:
    """Return the number of training images of a job. Loads the data set."""
    sample = image_sample(job.dataset, job.image_size, job.classes, job.train_images, 0.0, job.first_seed, job.draw)
    return len(sample.train_x)


def pace(job: EnsembleTraining) -> Pace:
    """Measure how fast a job trains, by three hundred steps of it.

    Raises:
        DataError: the data set was not fetched.
    """
    per_epoch = steps_per_epoch(images_of(job), job.batch_size)
    short = replace(job, epochs=math.ceil(3 * TOLD / per_epoch), measurements=1, first_measured=1.0)
    if per_epoch > 3 * TOLD:
        short = replace(short, train_images=3 * TOLD * job.batch_size)
    told: list[float] = []

    def progress(_done: int, _total: int) -> None:
        told.append(time.perf_counter())

    with TemporaryDirectory() as folder:
        short.compute(Desk(progress, Checkpoints(Path(folder))))
    # Steps 0, 100, 200, ..., last; the networks are measured before step 0 and at the end. The first hundred steps are
    # for warming up.
    last = short.epochs * steps_per_epoch(images_of(short), job.batch_size)
    step = (told[2] - told[1]) / TOLD
    return Pace(step, max(0.0, told[-1] - told[-2] - step * (last % TOLD or TOLD)))


def project(
    jobs: Sequence[EnsembleTraining],
    images: Callable[[EnsembleTraining], int] = images_of,
    pace: Callable[[EnsembleTraining], Pace] = pace,
) -> Projection:
    """Return how long jobs will take on one core of this machine.

    Jobs that differ in draw, seed, label noise, learning rate or epochs only have one pace, which is measured once.

    Args:
        jobs: any trainings of ensembles.
        images: number of training images of a job.
        pace: measures a job's pace.
    """
    paces: dict[EnsembleTraining, Pace] = {}
    steps, trained, measured = 0, 0.0, 0.0
    for job in jobs:
        alike = replace(job, draw=0, first_seed=0, label_noise=0.0, lr=0.0, epochs=1)
        if alike not in paces:
            paces[alike] = pace(job)
        at = job.measured_steps(images(alike))
        steps += at[-1]
        trained += at[-1] * paces[alike].step
        measured += len(at) * paces[alike].measurement
    seconds = trained + measured
    return Projection(len(jobs), steps, seconds, measured / seconds if seconds else 0.0)
