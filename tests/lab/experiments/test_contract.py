"""What every experiment promises before anything is computed: its front door, its configs and its jobs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from tests.cases.repetitions import REPETITIONS, every_experiment

from feedalign.lab.experiments import CLAIMS, DATASETS, get
from feedalign.lab.runs import config_hash
from feedalign.rules import RULES
from feedalign.style import RULE_COLOURS, RULE_LABELS

# Kinds of jobs that belong to no single experiment.
SHARED = {"convnets-training", "ensemble-training"}
Config = Callable[[str], Any]


@every_experiment
def test_the_front_door_is_complete_and_agrees_with_the_catalogue(name: str) -> None:
    experiment = get(name)
    assert name == experiment.NAME
    assert CLAIMS[name] == experiment.CLAIM
    assert experiment.CLAIM.endswith(".")
    assert tuple(experiment.ON_DATASET) == DATASETS.get(name, ())
    for presets in (experiment.CONFIGS, *experiment.ON_DATASET.values()):
        assert set(presets) == {"quick", "paper"}
    for function in (
        experiment,
        experiment.jobs,
        experiment.gather,
        experiment.check,
        experiment.plot,
        experiment.caption,
    ):
        assert (function.__doc__ or "").strip()


@every_experiment
def test_configs_are_frozen_and_hashable_and_paper_is_not_quick(name: str) -> None:
    configs = get(name).CONFIGS
    assert configs["quick"] != configs["paper"]
    assert len({configs["quick"], configs["paper"], replace(configs["quick"])}) == 2
    for field in fields(configs["quick"]):
        with pytest.raises(FrozenInstanceError, match=field.name):
            setattr(configs["quick"], field.name, None)


@every_experiment
def test_jobs_are_different_plain_values_and_say_all_that_decides(name: str, tiny_config: Config) -> None:
    """Another config with the same jobs reads the same runs, so a job must not depend on how many others there are."""
    config = tiny_config(name)
    jobs = get(name).jobs(config)
    assert jobs
    assert len(set(jobs)) == len(jobs)
    assert len({config_hash(job.kind, job) for job in jobs}) == len(jobs)
    for job in jobs:
        assert pickle.loads(pickle.dumps(job)) == job
        assert job.kind.startswith(f"{name}-") or job.kind in SHARED
    fewer = replace(config, **{REPETITIONS[name][0]: 1})
    assert set(get(name).jobs(fewer)) < set(jobs)


@every_experiment
def test_every_field_of_a_config_is_explained(name: str) -> None:
    config = type(get(name).CONFIGS["quick"])
    explained = "".join(each.__doc__ or "" for each in config.__mro__)
    assert [field.name for field in fields(config) if f"\n        {field.name}: " not in explained] == []


def test_the_rules_of_figures_are_the_rules_of_the_library() -> None:
    assert RULE_COLOURS.keys() == RULE_LABELS.keys() <= RULES.keys()
