"""Configs of one's own trainings: what is read from TOML, what is refused, and that equal runs have equal configs."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedalign.errors import ArgumentError
from feedalign.lab.own_training import TrainConfig, check_value, config_of, purpose, unused
from feedalign.lab.own_training.checking import check_values, refuse_unused, resolved
from feedalign.lab.own_training.toml import written
from feedalign.lab.recipes import RECIPES, recipe_of
from feedalign.rules import RULES

HINTS = get_type_hints(TrainConfig)


def read(tmp_path: Path, text: str) -> TrainConfig:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return config_of(file)


def test_the_rules_and_recipes_that_can_be_named_are_the_ones_there_are() -> None:
    assert set(get_args(HINTS["rule"])) == set(RULES)
    assert get_args(HINTS["feedback"]) == ("automatic", *RECIPES)
    assert recipe_of("automatic", None) is None
    assert all(callable(getattr(recipe_of(name, 0.5), "draw", None)) for name in RECIPES)


def test_every_default_is_valid_and_used_or_without_effect() -> None:
    config = TrainConfig()
    assert check_values(config) == config
    assert unused(config) == []


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = read(
        tmp_path, '[train]\nlr = 1\nhidden = [20, 10]\nclasses = [3, 8]\nrule = "fa"\nbias = false\nseed_data = 3\n'
    )
    assert config == TrainConfig(lr=1.0, hidden=(20, 10), classes=(3, 8), rule="fa", bias=False, seed_data=3)
    assert read(tmp_path, "") == TrainConfig()


@given(
    st.builds(
        TrainConfig,
        dataset=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.isprintable),
        hidden=st.lists(st.integers(1, 9), min_size=1).map(tuple),
        lr=st.none() | st.floats(1e-300, 1e30),
        label_noise=st.floats(0, 1),
        bias=st.booleans(),
        classes=st.lists(st.integers(0, 9)).map(tuple),
        rule=st.sampled_from(sorted(RULES)),
        seed=st.integers(0, 2**63 - 1),
        seed_feedback=st.none() | st.integers(0, 2**63 - 1),
    )
)
def test_what_is_written_reads_back_as_the_same_run(config: TrainConfig) -> None:
    run = resolved(check_values(config))
    table = tomllib.loads(written(run))["train"]
    again = TrainConfig(**{name: check_value(name, value) for name, value in table.items()})
    assert resolved(again) == run
    assert all(purpose(run, name) is None for name in table)


def test_a_seed_stands_for_the_seeds_that_are_not_given() -> None:
    assert resolved(TrainConfig(seed=3)) == resolved(TrainConfig(seed_weights=3, seed_feedback=3, seed_data=3))
    assert resolved(TrainConfig(seed=3, seed_data=0)).seed_data == 0


def test_the_learning_rate_is_that_of_the_optimizer_unless_given() -> None:
    assert [resolved(TrainConfig(optimizer=name)).lr for name in ("sgd", "adam", "adamw")] == [0.1, 1e-3, 1e-3]
    assert resolved(TrainConfig(optimizer="adam", lr=0.5)).lr == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nhiden = [3]\n", r"mine\.toml, \[train\]: 'hiden' is unknown \(did you mean hidden\?\); known are"),
        ("[train]\nbatch-size = 3\n", r"did you mean batch_size\?"),
        ("[train]\nlearning_rate = 3\n", r"did you mean lr\?"),
        ("[train]\nxyzzy = 3\n", "'xyzzy' is unknown; known are dataset"),
        ("[trian]\n", r"'trian' is unknown \(did you mean train\?\); expected the table \[train\]"),
        ("lr = 0.1\n", r"lr stands outside of a table; write \[train\] above it"),
        ("[train]\n[grid]\nlr = [1]\n", r"there is a table \[grid\]: a grid is for `feedalign sweep`"),
        ("[train]\nlr = \n", r"mine\.toml is no TOML file: Invalid value \(at line 2"),
        ('[train]\nlr = "0.1"\n', r"lr must be a number .* got '0\.1'; write the number without quotes"),
        ("[train]\nlr = true\n", "lr must be a number .* got True"),
        ("[train]\nepochs = 2.5\n", "epochs must be a whole number of at least 1, got 2.5"),
        ("[train]\nhidden = 100\n", "hidden must be a sequence of whole numbers, got 100"),
        ("[train]\nhidden = []\n", "hidden=.* leaves no hidden layer"),
        ('[train]\nhidden = ["a"]\n', r"hidden\[0\] must be a whole number"),
        ("[train]\nrule = 3\n", "rule=3 is unknown; expected one of backprop"),
        ("[train]\nclasses = 3\n", "classes must be a sequence of whole numbers, got 3"),
        ("[train]\nclasses = [0, -1]\n", r"classes\[1\] must be a whole number of at least 0, got -1"),
        ('[train]\nbias = "yes"\n', "bias must be True or False, got 'yes'"),
        ('[train]\ndataset = ""\n', "dataset must be text that can be printed, got ''"),
        ("[train]\npoints = [1]\n", r"points\[0\] must be text"),
        ("train = 3\n", r"'train' is unknown.*expected the table \[train\]"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"cannot read .*none\.toml .*; give the name of a TOML file"):
        config_of(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ArgumentError, match="is no TOML file"):
        config_of(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lr", (0, -1.0, float("nan"), float("inf"), 1e300)),
        ("label_noise", (-0.1, 1.1)),
        ("momentum", (1.0, -0.5)),
        ("weight_decay", (-1.0,)),
        ("epochs", (0,)),
        ("measurements", (0, 1001)),
        ("seed_data", (-1, 2**63)),
        ("feedback_scale", (0.0,)),
    ],
)
def test_values_out_of_range_are_refused(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ArgumentError, match=f"^{name} must be"):
            check_values(replace(TrainConfig(), **{name: value}))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(momentum=0.5, optimizer="adam"), "momentum=0.5 has no effect here: it is for optimizer sgd"),
        (TrainConfig(channels=(3,)), "it is for network convnet"),
        (TrainConfig(hidden=(3,), network="convnet"), "it is for network mlp"),
        (TrainConfig(activation="relu", network="my:net"), "it is for network mlp or convnet"),
        (TrainConfig(points=("1",)), "it is for a network of your own"),
        (TrainConfig(feedback_lr=0.2), "it is for rule kolen-pollack or direct-kolen-pollack"),
        (TrainConfig(feedback_scale=0.2), "it is for feedback that is named"),
    ],
)
def test_what_has_no_effect_is_refused(config: TrainConfig, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        refuse_unused(config)


def test_every_field_has_a_type_that_is_checked() -> None:
    for field in fields(TrainConfig):
        with pytest.raises(ArgumentError, match=field.name):
            check_value(field.name, object())
