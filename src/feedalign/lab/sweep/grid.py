"""The grid of a sweep: which runs there are, and which controls belong to them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from feedalign.checks import shown
from feedalign.errors import ArgumentError
from feedalign.lab.own_training import TrainConfig, check_key, check_value, checked_table, purpose, tables_of, unused

MOST_RUNS = 10_000
CONTROLS = ("backprop", "readout-only")
# What belongs to the rule: the controls of a run differ from the run in these fields alone.
OF_RULE = ("rule", "feedback", "feedback_scale", "feedback_lr", "feedback_decay", "seed_feedback")
SEEDS = ("seed", "seed_weights", "seed_feedback", "seed_data")


@dataclass(frozen=True)
class SweepConfig:
    """What all runs of a sweep have in common, and in what they differ.

    Attributes:
        train: what they have in common.
        grid: keys and their values, in order. There is a run for each combination of values.
    """

    train: TrainConfig
    grid: tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        config: what is trained.
        values: by key of the grid; a key that the run does not use is not there.
        is_control: whether the sweep has added the run by itself.
    """

    config: TrainConfig
    values: Mapping[str, Any]
    is_control: bool = False


def sweep_of(file: Path) -> SweepConfig:
    """Return the sweep that a TOML file asks for: a table [train], and a table [grid] with a list of values by key.

    Raises:
        ArgumentError: the file cannot be read, is no TOML, or holds something unknown or wrong; says where and what.
    """
    tables = tables_of(file, ("train", "grid"))
    base = TrainConfig(**checked_table(file, "train", tables["train"]))
    if not tables["grid"]:
        raise ArgumentError(f'{file} has no [grid]; write a table such as [grid] with rule = ["dfa", "fa"]')
    grid = []
    for name, values in tables["grid"].items():
        check_key(file, "grid", name)
        if name in tables["train"]:
            raise ArgumentError(f"{file}: {name} stands in [train] and in [grid]; leave it out of [train]")
        if not isinstance(values, list) or not values:
            raise ArgumentError(f"{file}, [grid]: {name} must be a list of values, got {shown(values)}")
        try:
            checked = tuple(check_value(name, value) for value in values)
        except ArgumentError as error:
            raise ArgumentError(f"{file}, [grid]: an entry of {name}: {error}") from error
        if len(set(checked)) < len(checked):
            raise ArgumentError(f"{file}, [grid]: {name} has a value twice: {shown(values)}")
        grid.append((name, checked))
    sweep = SweepConfig(base, tuple(grid))
    _check_used(file, sweep)
    return sweep


def points_of(sweep: SweepConfig) -> list[Point]:
    """Return the runs of a sweep, in the order of the grid, and behind them the controls that are not among them.

    What a run does not use, such as the channels of an mlp, is not set, and runs that become equal are one run.
    """
    keys = [name for name, _ in sweep.grid]
    points = dict[TrainConfig, Point]()
    for combination in itertools.product(*(values for _, values in sweep.grid)):
        config = _used(replace(sweep.train, **dict(zip(keys, combination, strict=True))))
        points.setdefault(config, Point(config, _values(config, keys)))
    for point in list(points.values()):
        for config in controls_of(sweep, point):
            values = {name: value for name, value in _values(config, keys).items() if name not in OF_RULE[1:]}
            points.setdefault(config, Point(config, values, is_control=True))
    return list(points.values())


def controls_of(sweep: SweepConfig, point: Point) -> list[TrainConfig]:
    """Return the controls of a run, in the order of `CONTROLS`: the same run under backprop, and of the readout alone.

    Their feedback, which they do not learn with, is that of the table [train].
    """
    of_base = {name: getattr(sweep.train, name) for name in OF_RULE}
    return [_used(replace(point.config, **of_base | {"rule": rule})) for rule in CONTROLS]


def _used(config: TrainConfig) -> TrainConfig:
    """Return the config without what it does not use."""
    return replace(config, **{name: getattr(TrainConfig, name) for name in unused(config)})


def _values(config: TrainConfig, keys: list[str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in keys if purpose(config, name) is None}


def _check_used(file: Path, sweep: SweepConfig) -> None:
    """Refuse grids that are too large, and what no run of the sweep uses."""
    runs = math.prod(len(values) for _, values in sweep.grid)
    if runs > MOST_RUNS:
        raise ArgumentError(f"{file}: the grid has {runs:,} runs; at most {MOST_RUNS:,} are possible")
    configs = [point.config for point in points_of(sweep) if not point.is_control]
    given = {name for name, _ in sweep.grid}
    given |= {field.name for field in fields(TrainConfig) if getattr(sweep.train, field.name) != field.default}
    for name in sorted(given):
        if all(purpose(config, name) is not None for config in configs):
            raise ArgumentError(f"{file}: no run uses {name}: it is for {purpose(configs[0], name)}; leave it out")
