"""Data sets that take the configs of others: the same in all but the name, and what is said to differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from feedalign.lab import data
from feedalign.lab.experiments import DATASETS, get
from feedalign.lab.experiments.common.relatives import RELATIVES, with_relatives

TEN = {("deep-dynamics", "cifar100")}  # its thresholds count from a chance of one tenth


@pytest.mark.parametrize("name", DATASETS)
def test_relatives_have_the_same_configs_but_for_the_data_set_and_the_classes(name: str) -> None:
    configs = get(name).ON_DATASET
    for dataset, relative in RELATIVES.items():
        for preset, config in configs[dataset].items():
            other = configs[relative][preset]
            assert other.dataset == relative
            classes: dict[str, Any] = {"classes": tuple(range(10))} if (name, relative) in TEN else {}
            assert other == replace(config, dataset=relative, **classes)


def test_every_data_set_of_an_experiment_can_be_loaded_by_its_name() -> None:
    assert {dataset for datasets in DATASETS.values() for dataset in datasets} == set(data.NAMES)


def test_a_relative_follows_its_data_set_and_others_stay() -> None:
    config = get("layerwise").ON_DATASET["mnist"]["quick"]
    sets = {name: {"quick": replace(config, dataset=name)} for name in ("digits", "mnist", "cifar10")}
    found = with_relatives(sets, epochs=7)
    assert list(found) == ["digits", "mnist", "fashion-mnist", "cifar10", "cifar100"]
    assert {name: found[name] for name in sets} == sets
    assert found["cifar100"]["quick"] == replace(config, dataset="cifar100", epochs=7)
    assert found["fashion-mnist"]["quick"] == replace(config, dataset="fashion-mnist")
