"""What every experiment promises of its claim: the committed verdicts, verdicts that can fail, figure and caption."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tests.cases.repetitions import REPETITIONS, every_experiment, generators

from feedalign.lab import experiments
from feedalign.lab.experiments import Experiment, compute, get
from feedalign.lab.runs import compute_job
from feedalign.style import svg
from feedalign.theory import linear, shallow

RESULTS = Path(__file__).parents[3] / "results"
Result = Callable[[str], xr.Dataset]


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("drew random numbers, or trained")


@every_experiment
def test_a_check_draws_nothing_and_always_says_the_same(
    name: str, tiny_result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tiny_result(name)
    before = generators()
    for maker in ("default_rng", "Generator", "SeedSequence"):
        monkeypatch.setattr(np.random, maker, refuse)
    monkeypatch.setattr(torch, "Generator", refuse)
    first, second = (list(map(repr, get(name).check(dataset))) for _ in range(2))
    assert first == second
    assert generators() == before
    xr.testing.assert_identical(dataset, tiny_result(name))


@every_experiment
def test_verdicts_are_complete(name: str, tiny_result: Result) -> None:
    verdicts = get(name).check(tiny_result(name))
    assert verdicts
    assert len({verdict.claim for verdict in verdicts}) == len(verdicts)
    for verdict in verdicts:
        assert verdict.claim
        assert re.match(r"(a|one) \w+", verdict.sample), "the sample says what one independent run is"
        assert verdict.side in ("above", "below")
        assert type(verdict.supported) is bool
        assert type(verdict.runs) is int
        for number in (verdict.effect, verdict.standard_error, verdict.threshold, verdict.margin):
            assert type(number) is float
        assert math.isfinite(verdict.threshold)


@every_experiment
def test_of_a_single_run_no_claim_is_supported(name: str, tiny_result: Result) -> None:
    one = tiny_result(name).isel({REPETITIONS[name][1]: slice(1)})
    if name == "relu-recovery":  # its runs of different pairs (M, K) are independent as well
        one = one.isel(case=slice(1))
    assert not any(verdict.supported for verdict in get(name).check(one))


@every_experiment
def test_every_verdict_has_a_made_up_data_set_on_which_it_fails(name: str) -> None:
    """The data sets stand beside the tests of each experiment: `ideal` supports everything, `FAILING` spoils it."""
    made_up = import_module(f"tests.lab.experiments.test_{name.replace('-', '_')}")
    assert all(verdict.supported for verdict in get(name).check(made_up.ideal()))
    failed: set[int] = set()
    for change, expected in made_up.FAILING:
        dataset = made_up.ideal()
        change(dataset)
        verdicts = get(name).check(dataset)
        assert {i for i, verdict in enumerate(verdicts) if not verdict.supported} == expected, change
        # A number that is missing makes every verdict fail, and shows nothing of its threshold.
        failed |= {i for i in expected if math.isfinite(verdicts[i].p_value)}
    everything = set(range(len(get(name).check(made_up.ideal()))))
    assert failed == everything, "each verdict fails on some data set in which no number is missing"


@every_experiment
def test_a_figure_is_labelled_repeats_byte_for_byte_and_trains_nothing(
    name: str, tiny_result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tiny_result(name)  # before it is forbidden to compute one
    for owner, attribute in [
        (torch.Tensor, "backward"), (shallow, "integrate"), (shallow, "simulate"), (linear, "train"),
        (linear, "population"), (get(name), "jobs"),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, attribute, refuse)
    figure = get(name).plot(result)
    assert isinstance(figure, Figure)
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert any(shared.get_ylabel() for shared in beside(axes))
        assert axes.get_title(loc="left")
        assert axes.has_data()
    picture = svg(figure)
    ElementTree.fromstring(picture)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "svg.hashsalt": "other", "lines.linewidth": 9}):
        assert svg(get(name).plot(tiny_result(name))) == picture


def beside(axes: Axes) -> list[Axes]:
    """The axes themselves, and those that share their vertical axis."""
    return axes.get_shared_y_axes().get_siblings(axes)


@every_experiment
def test_the_caption_counts_the_runs(name: str, tiny_result: Result) -> None:
    caption = get(name).caption(tiny_result(name))
    assert REPETITIONS[name][2] in caption
    assert caption.endswith(".")
    assert "nan" not in caption


def told(name: str) -> list[str]:
    """The committed verdict on each part of a claim; the documentation shows these."""
    committed = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return [part["verdict"] for part in committed["parts"]]


@pytest.mark.claims
@every_experiment
def test_the_quick_preset_supports_what_the_documentation_says(name: str) -> None:
    experiment: Experiment = experiments.get(name)
    verdicts = experiment.check(compute(experiment, experiment.CONFIGS["quick"]))
    assert [verdict.word for verdict in verdicts] == told(name)


@every_experiment
def test_the_committed_data_support_what_the_documentation_says(name: str) -> None:
    assert [verdict.word for verdict in experiments.get(name).check(committed_data(name))] == told(name)


@pytest.mark.slow
@every_experiment
def test_the_committed_data_are_what_the_quick_preset_computes(name: str) -> None:
    """One job of each experiment is computed anew here; `make claims` computes all of them."""
    experiment, there = experiments.get(name), committed_data(name)
    found = compute_job(experiment.jobs(experiment.CONFIGS["quick"])[0])
    agreeing = {
        name: max(agreement(there[held], found[name]) for held in places)
        for name in map(str, found.data_vars)
        if (places := [held for held in map(str, there.data_vars) if held_as(held, name)])
    }
    # Another processor rounds otherwise, and a long training makes the differences larger, so a tenth is left free.
    assert agreeing
    assert min(agreeing.values()) >= 0.9, agreeing


def committed_data(name: str) -> xr.Dataset:
    return xr.load_dataset(RESULTS / f"{name}.nc", engine="h5netcdf")


def held_as(held: str, variable: str) -> bool:
    """Whether an experiment keeps a job's variable under this name: its own, or with the group's name before it."""
    return held == variable or held.endswith(f"_{variable}")


def agreement(held: xr.DataArray, found: xr.DataArray) -> float:
    """Return which share of a job's numbers is among the committed ones, within 1 %, at the place that fits best."""
    if not set(found.dims) <= set(held.dims):
        return 0.0
    places = held.stack(place=[dim for dim in held.dims if dim not in found.dims]).transpose("place", *found.dims)
    equal = np.isclose(places.values, found.values, rtol=1e-2, atol=1e-6, equal_nan=True)
    return float(equal.reshape(len(equal), -1).mean(axis=1).max())


def test_at_most_one_part_of_a_claim_is_not_supported() -> None:
    words = [word for name in experiments.NAMES for word in told(name)]
    assert words.count("not supported") <= 1
    assert set(words) <= {"supported", "not supported"}
