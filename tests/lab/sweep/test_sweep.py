"""Sweeps: which runs a grid asks for, what the controls are, and what the table says of the results."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from feedalign.errors import ArgumentError
from feedalign.lab import own_training
from feedalign.lab.own_training import TrainConfig
from feedalign.lab.runs import LocalWorkers, RunStore
from feedalign.lab.sweep import SweepConfig, compute, diverged, points_of, summary, sweep_of, table
from feedalign.lab.sweep.running import share_recovered
from feedalign.lab.sweep.showing import csv_of, groups, plot

TINY = TrainConfig(train_samples=200, hidden=(8,), epochs=2, batch_size=20, measurements=2, probe=30)


def grid(train: TrainConfig = TINY, **values: tuple[Any, ...]) -> SweepConfig:
    return SweepConfig(train, tuple(values.items()))


def configs(sweep: SweepConfig, *, controls: bool) -> list[TrainConfig]:
    return [point.config for point in points_of(sweep) if point.is_control == controls]


def test_there_is_a_run_for_each_combination_the_last_key_changing_fastest() -> None:
    found = configs(grid(lr=(0.1, 0.2), seed=(0, 1, 2)), controls=False)
    assert found == [replace(TINY, lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in (0, 1, 2)]


def test_controls_differ_from_their_runs_in_the_rule_and_its_feedback_alone() -> None:
    sweep = grid(feedback=("gaussian", "uniform"), lr=(0.1, 0.2), seed_feedback=(0, 1))
    found = configs(sweep, controls=True)
    assert found == [replace(TINY, rule=rule, lr=lr) for lr in (0.1, 0.2) for rule in ("backprop", "readout-only")]


def test_a_control_that_is_in_the_grid_is_not_added() -> None:
    sweep = grid(rule=("backprop", "dfa"))
    assert [config.rule for config in configs(sweep, controls=True)] == ["readout-only"]
    assert [config.rule for config in configs(sweep, controls=False)] == ["backprop", "dfa"]


def test_what_a_run_does_not_use_is_not_set_and_makes_no_second_run() -> None:
    sweep = grid(
        replace(TINY, momentum=0.9), network=("mlp", "convnet"), hidden=((8,), (9,)), optimizer=("sgd", "adam")
    )
    found = configs(sweep, controls=False)
    assert len(found) == 2 * 2 + 2
    assert {config.momentum for config in found if config.optimizer == "adam"} == {0.0}
    assert {config.hidden for config in found if config.network == "convnet"} == {TrainConfig.hidden}
    shown = [point.values for point in points_of(sweep)]
    assert all(("hidden" in values) == (values["network"] == "mlp") for values in shown)


def read(tmp_path: Path, text: str) -> SweepConfig:
    (tmp_path / "grid.toml").write_text(text)
    return sweep_of(tmp_path / "grid.toml")


def test_a_file_gives_the_grid(tmp_path: Path) -> None:
    text = '[train]\nepochs = 2\n[grid]\nhidden = [[8], [8, 8]]\nrule = ["dfa", "fa"]\n'
    expected = SweepConfig(TrainConfig(epochs=2), (("hidden", ((8,), (8, 8))), ("rule", ("dfa", "fa"))))
    assert read(tmp_path, text) == expected


def test_a_grid_of_classes_has_its_own_controls(tmp_path: Path) -> None:
    text = "[train]\ntrain_samples = 100\nepochs = 1\nmeasurements = 1\n[grid]\nclasses = [[0, 1], [3, 8, 9]]\n"
    sweep = read(tmp_path, text)
    assert {point.config.classes for point in points_of(sweep) if point.is_control} == {(0, 1), (3, 8, 9)}
    found = compute(sweep, tmp_path / "runs")
    assert found.dataset.sizes["run"] == 2 * 3
    assert {row[1] for row in table(found.dataset)[1]} == {"0 1", "3 8 9"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\n", r"has no \[grid\]; write a table such as"),
        ("[grid]\n", r"has no \[grid\]"),
        ("[grid]\nrulle = [1]\n", r"\[grid\]: 'rulle' is unknown \(did you mean rule\?\)"),
        ("[grid]\nlr = 0.1\n", r"\[grid\]: lr must be a list of values, got 0.1"),
        ("[grid]\nlr = []\n", r"lr must be a list of values, got \[\]"),
        ("[grid]\nlr = [0.1, -1]\n", r"\[grid\]: an entry of lr: lr must be a number .* got -1"),
        ("[grid]\nhidden = [8, 9]\n", "an entry of hidden: hidden must be a sequence of whole numbers, got 8"),
        ("[grid]\nlr = [0.1, 0.1]\n", "lr has a value twice"),
        ("[train]\nlr = 0.1\n[grid]\nlr = [0.1]\n", r"lr stands in \[train\] and in \[grid\]; leave it out"),
        ("[train]\nchannels = [3]\n[grid]\nlr = [0.1]\n", "no run uses channels: it is for network convnet"),
        ("[grid]\nmomentum = [0.1]\noptimizer = ['adam']\n", "no run uses momentum: it is for optimizer sgd"),
        ("[grid]\nseed = [%s]\nlr = [%s]\n" % (  # noqa: UP031 — braces are not
            ", ".join(map(str, range(101))), ", ".join(map(str, range(1, 101)))), "has 10,100 runs; at most 10,000"),
        ("[gird]\nlr = [0.1]\n", r"'gird' is unknown \(did you mean grid\?\); expected the table \[train\] and"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read(tmp_path, text)


def test_a_run_that_cannot_be_trained_is_told_with_its_place_in_the_grid(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"rule frozen, lr 0\.1: between the first block and the readout"):
        compute(grid(rule=("dfa", "frozen"), lr=(0.1,)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("accuracy", "backprop", "readout", "expected"),
    [(0.9, 0.9, 0.5, 1.0), (0.5, 0.9, 0.5, 0.0), (0.7, 0.9, 0.5, 0.5), (0.4, 0.9, 0.5, -0.25)],
)
def test_recovery_is_the_share_of_backprops_gain(
    accuracy: float, backprop: float, readout: float, expected: float
) -> None:
    assert share_recovered(accuracy, backprop, readout) == pytest.approx(expected)


def test_where_backprop_gains_nothing_there_is_nothing_to_recover() -> None:
    assert math.isnan(share_recovered(0.9, 0.5, 0.5))
    assert math.isnan(share_recovered(0.9, float("nan"), 0.5))


def test_runs_are_shared_with_train_and_with_other_sweeps(tmp_path: Path) -> None:
    sweep = grid(rule=("dfa", "fa"), seed=(0, 1))
    alone = own_training.compute(replace(TINY, seed=1), tmp_path)
    found = compute(sweep, tmp_path, LocalWorkers(2))
    store = RunStore(tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in (store.root / "train").iterdir()}
    assert len(made) == 4 + 4
    assert alone.folder.name in found.dataset.folder.values
    compute(grid(replace(TINY, seed=1), rule=("dfa", "drtp")), tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in (store.root / "train").iterdir()}
    assert made.items() <= after.items()
    assert len(after) == len(made) + 1
    _check_table(found.folder, found.dataset)


def _check_table(folder: Path, dataset: xr.Dataset) -> None:
    """What is in the table is what the runs measured, and recovery is that of each seed's own controls."""
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    accuracy = {(row["rule"], row["seed"]): float(row["test_accuracy"]) for row in rows}
    assert len(accuracy) == 8
    for row in rows:
        end = xr.load_dataset(folder.parents[1] / "train" / row["folder"] / "result.nc", engine="h5netcdf")
        assert float(row["test_accuracy"]) == float(end.test_accuracy[-1])
        backprop, readout = (accuracy[rule, row["seed"]] for rule in ("backprop", "readout-only"))
        recovered = (float(row["test_accuracy"]) - readout) / (backprop - readout) if backprop > readout else math.nan
        np.testing.assert_allclose(float(row["recovery"]), recovered)
        assert row["is_control"] == str(row["rule"] in ("backprop", "readout-only"))
    assert (folder / "figure.svg").read_text().startswith("<?xml")
    heading, lines = table(dataset)
    assert heading[:3] == ["rule", "runs", "test accuracy"]
    assert [line[:2] for line in lines] == [[rule, "2"] for rule in ("dfa", "fa", "backprop", "readout-only")]
    mean = np.mean([accuracy["dfa", seed] for seed in "01"])
    spread = abs(accuracy["dfa", "0"] - accuracy["dfa", "1"]) / math.sqrt(2)
    assert lines[0][2] == f"{mean:.3f} ± {spread:.3f}"


def test_a_run_that_diverges_does_not_stop_the_others(tmp_path: Path) -> None:
    sweep = grid(replace(TINY, rule="backprop", activation="linear"), lr=(0.1, 1e20))
    dataset = compute(sweep, tmp_path).dataset
    assert diverged(dataset)
    gone = dataset.diverged_at.notnull().values
    assert dataset.test_accuracy.isnull().values.tolist() == gone.tolist()
    assert gone[:2].tolist() == [False, True]
    assert dataset.recovery[0] == 1
    assert "runs DIVERGED and are in no mean: train/" in summary(dataset)[0]
    assert "nan" in csv_of(dataset)
    _, rows = table(dataset)
    assert rows[0][2] == "1"
    assert rows[1][2:4] == ["0 of 1", "–"]
    assert len(plot(dataset).axes) == 3


def test_a_run_whose_loss_has_grown_tenfold_is_in_no_mean_though_its_numbers_are_finite(tmp_path: Path) -> None:
    """As `feedalign train` tells it of the same run."""
    dataset = compute(grid(replace(TINY, activation="tanh"), lr=(0.1, 1e4)), tmp_path).dataset
    assert diverged(dataset)
    gone = dataset.sel(run=dataset.grid_lr == "10000")
    assert (gone.diverged_at > 0).all()
    assert gone.test_accuracy.isnull().all()
    assert dataset.sel(run=dataset.grid_lr == "0.1").test_accuracy.notnull().all()
    assert f"{gone.sizes['run']} of {dataset.sizes['run']} runs DIVERGED" in summary(dataset)[0]


def test_groups_differ_in_more_than_their_seeds(tmp_path: Path) -> None:
    dataset = compute(grid(feedback=("gaussian", "uniform"), seed=(0, 1)), tmp_path).dataset
    labels = [group.label for group in groups(dataset)]
    assert labels == ["dfa, feedback gaussian", "dfa, feedback uniform", "backprop", "readout-only"]
    assert [group.runs.sizes["run"] for group in groups(dataset)] == [2, 2, 2, 2]
