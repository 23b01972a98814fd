"""Fields of a config changed by name: what is taken, how equal values come out equal, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import pytest

from feedalign.errors import ArgumentError
from feedalign.lab.changes import Change, changed, read_options
from feedalign.lab.experiments import NAMES, get
from feedalign.lab.runs import config_hash


@dataclass(frozen=True)
class Net:
    channels: tuple[int, ...] = (8, 16)
    epochs: int = 4


@dataclass(frozen=True)
class Config:
    """A field of every kind that the configs of experiments have."""

    draws: int = 40
    image_size: int = 14
    lr: float = 0.1
    feedback_scale: float | None = None
    bias: bool = False
    optimizer: Literal["sgd", "adam"] = "sgd"
    device: str = "cpu"
    norms: tuple[float, ...] = (2.0, 8.0)
    classes: tuple[int, ...] = ()
    outputs: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    activations: tuple[tuple[Literal["tanh", "relu"], float], ...] = (("tanh", 1e-3),)
    net: Net = Net()


CONFIG = Config()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("draws=8", replace(CONFIG, draws=8)),
        (" draws = 8 ", replace(CONFIG, draws=8)),
        ("image_size=0", replace(CONFIG, image_size=0)),
        ("lr=1e-3", replace(CONFIG, lr=0.001)),
        ("feedback_scale=0.5", replace(CONFIG, feedback_scale=0.5)),
        ("bias=true", replace(CONFIG, bias=True)),
        ("optimizer=adam", replace(CONFIG, optimizer="adam")),
        ('device="cuda"', replace(CONFIG, device="cuda")),
        ("norms=[1, 2.5]", replace(CONFIG, norms=(1.0, 2.5))),
        ("classes=[3, 8]", replace(CONFIG, classes=(3, 8))),
        ("outputs=[[1, 0.5]]", replace(CONFIG, outputs=((1.0, 0.5),))),
        ('activations=[["relu", 1]]', replace(CONFIG, activations=(("relu", 1.0),))),
        ("net.epochs=1", replace(CONFIG, net=Net(epochs=1))),
        ("net.channels=[4]", replace(CONFIG, net=Net(channels=(4,)))),
    ],
)
def test_a_value_gets_the_type_of_its_field_and_is_written_as_it_is_read(option: str, expected: Config) -> None:
    config, (change,) = changed(CONFIG, read_options([option]))
    assert config == expected
    assert config_hash("x", config) == config_hash("x", expected), "1 and 1.0 are equal but hash differently"
    again, same = changed(CONFIG, read_options([change.option]))
    assert (again, same) == (config, (change,))


def test_a_field_is_given_back_to_nothing_and_to_no_entries() -> None:
    config = replace(CONFIG, feedback_scale=1.0, classes=(1, 2))
    back, _ = changed(config, {"feedback_scale": None, "classes": []})
    assert back == CONFIG


def test_changes_are_told_in_order_with_both_values() -> None:
    config, changes = changed(CONFIG, {"draws": 8, "net.epochs": 1, "net.channels": [4], "optimizer": "adam"})
    assert config == replace(CONFIG, draws=8, optimizer="adam", net=Net((4,), 1))
    assert changes[0] == Change("draws", 40, 8)
    assert [change.words for change in changes] == [
        "draws 8 instead of 40",
        "net.epochs 1 instead of 4",
        "net.channels [4] instead of [8, 16]",
        "optimizer adam instead of sgd",
    ]


def test_without_changes_a_config_is_itself() -> None:
    assert changed(CONFIG, {}) == (CONFIG, ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"draw": 8}, r"draw cannot be changed: 'draw' is unknown; known are draws, image_size, lr, "),
        ({"net.depth": 8}, r"net\.depth cannot be changed: 'depth' is unknown; known are channels, epochs"),
        ({"draws.x": 8}, r"draws\.x cannot be changed: draws has no fields of its own; write draws=VALUE"),
        ({"net": 8}, "net cannot be changed by a value: it holds objects; change it in a config from Python"),
        ({"draws": "many"}, "draws must be a whole number of at least 1, got 'many'; write a number, such as 5"),
        ({"draws": 2.5}, "draws must be a whole number of at least 1, got 2.5"),
        ({"draws": True}, "draws must be a whole number of at least 1, got True"),
        ({"draws": 0}, "draws must be a whole number of at least 1, got 0"),
        ({"lr": -1}, "lr must be a finite number of at least 0, got -1"),
        ({"lr": float("nan")}, "lr must be a finite number of at least 0, got nan"),
        ({"lr": None}, "lr must be a finite number of at least 0, got None"),
        ({"bias": 1}, "bias must be True or False, got 1"),
        ({"optimizer": "lion"}, "optimizer='lion' is unknown; expected one of sgd, adam"),
        ({"device": 3}, "device must be a word, got 3"),
        ({"norms": 2}, "norms must be a sequence of values, got 2"),
        ({"norms": []}, r"norms=\[\] leaves nothing to compute; give at least one value"),
        ({"norms": [2, "x"]}, r"norms\[1\] must be a finite number of at least 0, got 'x'"),
        ({"outputs": [[1]]}, r"outputs\[0\] must have 2 values, got 1"),
        ({"activations": [["gelu", 1]]}, r"activations\[0\]\[0\]='gelu' is unknown; expected one of tanh, relu"),
        ({"draws": 40}, "draws is 40 already; leave this change out, or give another value"),
        ({"norms": [2, 8]}, r"norms is \[2.0, 8.0\] already"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        changed(CONFIG, values)


@pytest.mark.parametrize("option", ["", "draws", "=8", "draws=", " = "])
def test_an_empty_change_is_refused(option: str) -> None:
    with pytest.raises(ArgumentError, match="is no change; write NAME=VALUE, such as --set draws=8"):
        read_options([option])


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ArgumentError, match="--set draws is given twice; give one value"):
        read_options(["draws=8", "draws=9"])


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_every_experiment_takes_its_own_value_or_says_that_it_holds_objects(name: str) -> None:
    """A field whose type `changed` does not know would be refused with another message than "already"."""
    for config in get(name).CONFIGS.values():
        for field in fields(config):
            value = getattr(config, field.name)
            objects = is_dataclass(value) or (isinstance(value, tuple) and any(map(is_dataclass, value)))
            with pytest.raises(ArgumentError, match="it holds objects" if objects else f"{field.name} is .* already"):
                changed(config, {field.name: value})
