"""The projection of a grid: steps are counted exactly, seconds are steps times pace."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedalign.lab.experiments import deep_dynamics
from feedalign.lab.experiments.common.ensemble_training import EnsembleTraining

SPEC = importlib.util.spec_from_file_location("_projection", Path(__file__).parents[3] / "benchmarks/_projection.py")
assert SPEC is not None
assert SPEC.loader is not None
projection = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(projection)
Pace, images_of, pace, project = projection.Pace, projection.images_of, projection.pace, projection.project

JOB = EnsembleTraining(
    dataset="digits", train_images=96, hidden=(8,), activation="tanh", rule="dfa", lr=1e-3, draw=0, epochs=4,
    networks=2, measurements=5, probe=20,
)  # fmt: skip  # 3 steps an epoch, 12 in all


def test_steps_and_seconds_add_up_and_like_jobs_are_measured_once() -> None:
    asked: list[EnsembleTraining] = []

    def known(job: EnsembleTraining) -> Any:
        asked.append(job)
        return Pace(step=0.5, measurement=3.0) if job.rule == "dfa" else Pace(step=0.25, measurement=0.0)

    longer = replace(JOB, draw=1, epochs=8, label_noise=0.3, first_seed=9, lr=1.0)
    backprop = replace(JOB, rule="backprop")
    found = project([JOB, longer, backprop], lambda job: job.train_images, known)
    measurements = len(JOB.measured_steps(96)) + len(longer.measured_steps(96))
    assert asked == [JOB, backprop]
    assert found.trainings == 3
    assert found.steps == 12 + 24 + 12
    assert found.seconds == 0.5 * 36 + 0.25 * 12 + 3.0 * measurements
    assert found.measuring == pytest.approx(3.0 * measurements / found.seconds)


def test_nothing_takes_no_time() -> None:
    assert project([]).seconds == 0


def test_images_are_those_that_the_job_trains_on() -> None:
    assert images_of(JOB) == 96
    assert images_of(replace(JOB, train_images=0, classes=(0, 1))) < images_of(replace(JOB, train_images=0)) == 1442


@pytest.mark.parametrize("images", [96, 1442])
def test_a_pace_is_measured(images: int) -> None:
    found = pace(replace(JOB, train_images=images))
    assert 1e-6 < found.step < 0.1
    assert 0 <= found.measurement < 10


def test_the_paper_s_grid_has_the_paper_s_steps() -> None:
    """60 000 images in batches of 32, 1000 epochs, 2 activations × 2 rules × 5 noises × 3 draws."""
    jobs = deep_dynamics.jobs(deep_dynamics.CONFIGS["paper"])
    assert project(jobs, lambda _job: 60_000, lambda _job: Pace(1.0, 0.0)).steps == 1875 * 1000 * 2 * 2 * 5 * 3
