"""One's own training: it ends at the same bits however it is interrupted, and its folder holds what it promises."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

import feedalign as fa
from feedalign.lab.data import load, prepare
from feedalign.lab.own_training import TrainConfig, compute, config_of, diverged, run_of, summary, table
from feedalign.lab.runs import Checkpoints, Desk, RunStore
from feedalign.rules import RULES

TINY = TrainConfig(train_samples=200, hidden=(8, 7), epochs=5, batch_size=20, measurements=4, probe=30)


class StoppedError(Exception):
    """Raised in place of a kill."""


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "kept").iterdir()}


@pytest.mark.parametrize("rule", RULES)
def test_interrupted_under_any_rule_it_ends_at_the_same_bits(rule: Any, tmp_path: Path) -> None:
    config = replace(TINY, rule=rule, momentum=0.9, schedule="cosine", label_noise=0.2)
    job = run_of(config)
    expected = job.compute(Desk(lambda _done, _total: None, Checkpoints(tmp_path / "whole")))

    def stop(done: int, total: int) -> None:
        if done == 40:
            raise StoppedError(f"at step {done} of {total}")

    with pytest.raises(StoppedError, match="at step 40 of 50"):
        job.compute(Desk(stop, Checkpoints(tmp_path / "broken", every=0.0)))
    dataset = job.compute(Desk(lambda _done, _total: None, Checkpoints(tmp_path / "broken")))
    assert "goes on from checkpoint" in (tmp_path / "broken" / "log.txt").read_text()
    xr.testing.assert_identical(dataset, expected)
    assert kept(tmp_path / "broken") == kept(tmp_path / "whole")


KILLED = """
from pathlib import Path
from feedalign.lab.own_training import TrainConfig, run_of
from feedalign.lab.runs import Checkpoints, Desk, RunStore
job = run_of(TrainConfig(epochs=400, hidden=(8, 7), measurements=4))
folder = RunStore(Path("runs")).work_folder(job.kind, job)
job.compute(Desk(lambda done, total: None, Checkpoints(folder, every=0.0)))
"""


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(epochs=400, hidden=(8, 7), measurements=4)
    job = run_of(config)
    work = RunStore(Path("runs")).work_folder(job.kind, job)
    process = subprocess.Popen([sys.executable, "-c", KILLED])
    try:
        deadline = time.monotonic() + 120
        while not (work / "checkpoint-000001").exists():
            assert process.poll() is None, "the run was over before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()  # kill -9
        process.wait()
    run, unbroken = compute(config), compute(config, Path("unbroken"))
    assert run.folder.relative_to("runs") == unbroken.folder.relative_to("unbroken")
    assert "goes on from checkpoint-" in (run.folder / "log.txt").read_text()
    xr.testing.assert_identical(run.dataset, unbroken.dataset)
    for name in ("network.safetensors", "metrics.csv", "figure.svg", "config.toml"):
        assert (run.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()
    assert not work.exists()


def test_the_folder_holds_the_network_the_numbers_the_figure_and_the_config(tmp_path: Path) -> None:
    run = compute(TINY, tmp_path)
    assert {path.name for path in run.folder.iterdir()} == {
        "config.json", "config.toml", "environment.json", "figure.svg", "metrics.csv", "network.safetensors",
        "result.nc",
    }  # fmt: skip
    # The network, wrapped anew with another seed, is the trained one, and its feedback too.
    data = load("digits")
    x, test_x = prepare(data)
    net = fa.DFA(fa.networks.MLP([64, 8, 7, 10], seed=5), seed=5, example_input=x[:1])
    net.load_state_dict(load_file(run.folder / "network.safetensors"))
    with torch.no_grad():
        accuracy = float((net(test_x).argmax(1) == data.test_labels).double().mean())
    assert accuracy == run.dataset.test_accuracy[-1]
    weight = fa.weight_alignment(net).layers
    np.testing.assert_array_equal(run.dataset.weight_alignment[-1, 1:], list(weight.values()))
    # The table has every number.
    rows = list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == run.dataset.step.values.tolist()
    of_layer = run.dataset.gradient_alignment.sel(layer="2").values.tolist()
    assert [float(row["gradient_alignment/2"]) for row in rows] == of_layer
    # The config repeats the run.
    assert run_of(config_of(run.folder / "config.toml")) == run_of(TINY)


def test_it_learns_and_aligns_and_random_labels_are_told_apart(tmp_path: Path) -> None:
    dataset = compute(TrainConfig(epochs=5, label_noise=0.3), tmp_path).dataset
    end = dataset.isel(step=-1)
    assert end.test_accuracy > 0.85
    assert end.gradient_alignment.sel(layer=["0", "2"]).min() > 0.3
    assert end.clean_accuracy > 0.85
    assert end.noisy_accuracy < 0.3
    lines = summary(dataset)
    assert f"test accuracy {float(end.test_accuracy):.3f}" in lines[0]
    assert "on labels drawn at random" in lines[1]
    heading, rows = table(dataset)
    assert heading == ["layer", "gradient alignment", "weight alignment"]
    assert [(row[0], row[1] == "–", row[2] == "–") for row in rows] == [
        ("0", False, True), ("2", False, False), ("4", True, False),
    ]  # fmt: skip


def test_the_three_seeds_are_separate() -> None:
    def state(**seeds: Any) -> dict[str, torch.Tensor]:
        from feedalign.lab.own_training.learner import learner_of, prepared
        from feedalign.lab.own_training.samples import samples_of

        job = run_of(replace(TINY, label_noise=0.5, **seeds))
        with prepared(job.config):
            samples = samples_of(job.config, "")
            net, _ = learner_of(job.config, samples)
        feedback = net.feedback_matrices
        return {"weights": net.model.get_parameter("0.weight"), "feedback": feedback["1"], "data": samples.train_y}

    base = state()
    for changed in base:
        other = state(**{f"seed_{changed}": 1})
        assert {name for name, tensor in other.items() if not torch.equal(tensor, base[name])} == {changed}


def test_the_cosine_schedule_ends_without_a_step(tmp_path: Path) -> None:
    """Its last rates are nearly zero, so the loss stands still, which it does not at a constant rate."""
    ends = {}
    for schedule in ("cosine", "constant"):
        job = run_of(replace(TINY, schedule=schedule, measurements=300))
        losses = job.compute(Desk(lambda _done, _total: None, Checkpoints(tmp_path / schedule))).train_loss
        ends[schedule] = abs(float(losses[-1] - losses[-2]))
    assert ends["cosine"] < 0.05 * ends["constant"]


def test_a_run_that_diverges_is_told_and_keeps_what_was_measured(tmp_path: Path) -> None:
    config = replace(TINY, rule="backprop", activation="linear", lr=1e20, measurements=50)
    for _ in range(2):  # computed, and from the folder
        run = compute(config, tmp_path)
        assert diverged(run.dataset)
        assert run.dataset.sizes["step"] > 1
        assert np.isfinite(run.dataset.train_loss[0])
        said = summary(run.dataset)[0]
        assert said.startswith("DIVERGED: the loss is not finite after ")
        assert "give a smaller lr" in said
        assert not (run.folder / "network.safetensors").exists()
        assert (run.folder / "figure.svg").exists()


def test_a_run_whose_loss_has_grown_tenfold_is_told_though_its_numbers_are_finite(tmp_path: Path) -> None:
    """Activations of tanh stay finite at any learning rate."""
    run = compute(replace(TINY, activation="tanh", lr=1e4), tmp_path)
    assert np.isfinite(run.dataset.train_loss).all()
    assert diverged(run.dataset)
    assert re.match(r"DIVERGED: the train loss went from [\d.]+ to .*; give a smaller lr", summary(run.dataset)[0])
    assert not diverged(compute(TINY, tmp_path).dataset)
