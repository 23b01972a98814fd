"""A config of about a second for every experiment, its computation, and what a check makes of a result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tests.cases.repetitions import generators

from feedalign.lab import experiments
from feedalign.lab.experiments import Experiment, Verdict
from feedalign.lab.experiments.common.convnets import NetConfig

CELLS = ((1.0, 1.0), (0.5, 0.2))
TINY: dict[str, dict[str, Any]] = {
    "two-phases": {
        "input_dim": 50, "end_time": 20.0, "late_time": 100.0, "measurements": 6, "draws": 2, "seeds": 3,
    },
    "degeneracy-breaking": {"teachers": ((0.8, 1.5), (0.6, 1.1, 1.8)), "draws": 2, "end_time": 3000.0},
    "relu-recovery": {"teachers": (1, 2), "most_students": 3, "end_time": 100.0, "runs": 2},
    "overparametrisation": {
        "input_dim": 30, "teachers": 2, "students": (1, 2, 4), "end_time": 10.0, "measurements": 5, "runs": 2,
    },
    "shallow-variations": {
        "input_dim": 30, "end_time": 10.0, "late_time": 100.0, "measurements": 5, "draws": 2, "seeds": 2,
    },
    "alignment-matrices": {
        "outputs": CELLS, "inputs": 4, "samples": 12, "width": 10, "steps": 30, "measurements": 4, "draws": 2,
    },
    "output-statistics": {
        "alphas": (1.0, 0.2), "betas": (1.0, 0.2), "inputs": 4, "samples": 12, "width": 7, "steps": 20,
        "measurements": 3, "draws": 2,
    },
    "conditioned-feedback": {"outputs": CELLS, "width": 12, "inputs": 4, "steps": 1000, "draws": 2},
    "layerwise": {
        "hidden": (8, 6), "epochs": 2, "networks": 3, "draws": 2, "measurements": 5, "probe": 40, "lr": 3e-3,
    },
    "deep-dynamics": {
        "hidden": (8, 6), "train_images": 100, "label_noises": (0.0, 0.5), "epochs": 3, "draws": 2, "measurements": 5,
        "probe": 40,
    },
    "width": {
        "widths": (4, 8), "train_images": 60, "epochs": 2, "draws": 2, "measurements": 3, "probe": 40,
    },
    "gradient-perturbation": {
        "hidden": (8, 6), "norms": (2.0, 8.0), "train_images": 60, "epochs": 2, "draws": 2, "measurements": 3,
        "probe": 40,
    },
    "convolution": {
        "net": NetConfig(0, (2, 3, 3), (2, 2, 1), epochs=1), "shares": (0.0, 1.0), "feedbacks": 2, "connected_seeds": 2,
        "train_images": 64, "seeds": 2, "probe": 20,
    },
    "sharing": {
        "net": NetConfig(0, (2, 3, 3), (2, 1, 1), epochs=1), "regions": (1, 2), "train_images": 64, "seeds": 2,
        "probe": 20,
    },
    "transformer": {
        "width": 8, "context": 8, "windows": 32, "batch_size": 16, "warm_up": 1, "measurements": 2, "held_out": 4,
        "probe": 2, "seeds": 2,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One computation of an experiment, and what was seen of it.

    Attributes:
        result: its result.
        streams: the beginning of every random stream; tests/test_streams.py shows that there are no other streams.
        told: what was told of the progress, as (done, total).
        left_alone: whether the global random number generators are where they were.
    """

    result: xr.Dataset
    streams: frozenset[tuple[int, ...]]
    told: tuple[tuple[int, int], ...]
    left_alone: bool


@cache
def _run(name: str, **change: int) -> Run:
    streams: set[tuple[int, ...]] = set()
    told: list[tuple[int, int]] = []
    made = np.random.SeedSequence

    def recorded(*args: Any, **kwargs: Any) -> np.random.SeedSequence:
        sequence = made(*args, **kwargs)
        streams.add(tuple(sequence.generate_state(4).tolist()))
        return sequence

    before = generators()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "SeedSequence", recorded)
        config = replace(_config(name), **change)
        result = experiments.compute(experiments.get(name), config, lambda *now: told.append(now))
    return Run(result, frozenset(streams), tuple(told), generators() == before)


def _config(name: str) -> Any:
    return replace(experiments.get(name).CONFIGS["quick"], **TINY[name])


@pytest.fixture(scope="session")
def tiny_config() -> Callable[[str], Any]:
    """The config of about a second, by the experiment's name."""
    return _config


@pytest.fixture(scope="session")
def tiny_run() -> Callable[..., Run]:
    """The computation of that config, with a changed field or without; each is computed once in a session."""
    return _run


@pytest.fixture(scope="session")
def tiny_result() -> Callable[[str], xr.Dataset]:
    """The result of that config; a copy, so that a test may spoil it."""
    return lambda name: _run(name).result.copy(deep=True)


@pytest.fixture(scope="session")
def refused() -> Callable[[Experiment, xr.Dataset], set[int]]:
    """Which verdicts of an experiment's check are "not supported"; whatever is supported rests on finite numbers."""

    def indices(experiment: Experiment, dataset: xr.Dataset) -> set[int]:
        verdicts = experiment.check(dataset)
        assert all(_finite(verdict) for verdict in verdicts if verdict.supported)
        return {i for i, verdict in enumerate(verdicts) if not verdict.supported}

    return indices


def _finite(verdict: Verdict) -> bool:
    numbers = (verdict.effect, verdict.standard_error, verdict.threshold, verdict.p_value, *verdict.interval)
    return all(map(math.isfinite, numbers))
