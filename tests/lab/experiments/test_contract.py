"""What every experiment promises, whatever it claims."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab import experiments
from feedalign.lab.experiments import CLAIMS, DATASETS, NAMES, Experiment, compute, get
from feedalign.lab.runs import config_hash
from feedalign.rules import RULES
from feedalign.style import FEEDBACK_LABELS, RULE_COLOURS, RULE_LABELS, svg
from feedalign.theory import linear, shallow

# Of every experiment: the field of its config that counts independent repetitions, the dimension of these repetitions,
# and how the caption counts two of them.
RESULTS = Path(__file__).parents[3] / "results"
REPETITIONS = {
    "two-phases": ("draws", "draw", "theory of 1 further draws"),
    "degeneracy-breaking": ("draws", "draw", "2 draws"),
    "relu-recovery": ("runs", "run", "2 runs"),
    "overparametrisation": ("runs", "run", "2 runs"),
    "shallow-variations": ("draws", "draw", "2 draws"),
    "alignment-matrices": ("draws", "draw", "2 draws"),
    "output-statistics": ("draws", "draw", "2 draws"),
    "conditioned-feedback": ("draws", "draw", "2 draws"),
    "layerwise": ("draws", "draw", "2 feedback draws"),
    "deep-dynamics": ("draws", "draw", "2 draws"),
    "width": ("draws", "draw", "2 draws"),
    "gradient-perturbation": ("draws", "draw", "2 draws"),
    "convolution": ("seeds", "seed", "2 seeds"),
    "sharing": ("seeds", "seed", "2 seeds"),
    "transformer": ("seeds", "seed", "2 seeds"),
}
# Coordinates that mean nothing without a unit.
WITH_UNITS = {"time", "late_time", "epoch", "step"}

# Kinds of jobs that belong to no single experiment.
SHARED = {"convnets-training", "ensemble-training"}

Config = Callable[[str], Any]
Result = Callable[[str], xr.Dataset]
every_experiment = pytest.mark.parametrize("name", NAMES)


def generators() -> tuple[str, list[int]]:
    """The state of the global random number generators."""
    return repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


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


@every_experiment
def test_the_result_has_named_dimensions_units_and_the_librarys_names_of_rules(name: str, tiny_result: Result) -> None:
    dataset = tiny_result(name)
    assert not [dim for dim in dataset.dims if str(dim).startswith("dim_")]
    assert dataset.sizes[REPETITIONS[name][1]] == 2
    for coordinate in WITH_UNITS & set(map(str, dataset.coords)):
        assert dataset[coordinate].attrs["units"]
    if "rule" in dataset.coords:
        assert set(dataset["rule"].values) <= set(RULES)
    if "variant" in dataset.coords:
        assert set(dataset["variant"].values) <= set(RULES) | set(FEEDBACK_LABELS)
    for values in dataset.data_vars.values():
        assert values.dtype.kind in "fib"
        assert values.notnull().any()


@every_experiment
def test_a_run_repeats_bit_for_bit_and_more_repetitions_keep_the_first(
    name: str, tiny_config: Config, tiny_result: Result
) -> None:
    field, dim, _ = REPETITIONS[name]
    before = generators()
    once = compute(get(name), replace(tiny_config(name), **{field: 1}))
    assert generators() == before, "the global random number generators are nobody's"
    xr.testing.assert_identical(once, tiny_result(name).isel({dim: slice(1)}))


@every_experiment
def test_another_first_seed_gives_another_result(name: str, tiny_config: Config, tiny_result: Result) -> None:
    field, dim, _ = REPETITIONS[name]
    other = compute(get(name), replace(tiny_config(name), first_seed=100, **{field: 1}))
    assert not other.equals(tiny_result(name).isel({dim: slice(1)}))


def streams_of(name: str, config: Any, monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, ...]]:
    """The beginning of every random stream of a run; tests/test_streams.py shows that there are no other streams."""
    begun = set()
    made = np.random.SeedSequence

    def recorded(*args: Any, **kwargs: Any) -> np.random.SeedSequence:
        sequence = made(*args, **kwargs)
        begun.add(tuple(sequence.generate_state(4).tolist()))
        return sequence

    with monkeypatch.context() as patch:
        patch.setattr(np.random, "SeedSequence", recorded)
        compute(get(name), config)
    return begun


@every_experiment
def test_the_first_seed_decides_every_random_stream(
    name: str, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbouring first seeds too: runs must not count on from the first seed, or the two would share runs."""
    first, second, again = (
        streams_of(name, replace(tiny_config(name), first_seed=seed), monkeypatch) for seed in (0, 1, 0)
    )
    assert first
    assert first == again
    assert len(first) == len(second)
    assert not first & second


@pytest.mark.parametrize(("name", "rule"), [("conditioned-feedback", "dfa"), ("conditioned-feedback", "backprop")])
def test_each_rule_sees_other_random_inputs(name: str, rule: str, tiny_config: Config, tiny_result: Result) -> None:
    other = compute(get(name), replace(tiny_config(name), first_seed=1))
    assert not other.steps.sel(rule=rule).equals(tiny_result(name).steps.sel(rule=rule))


def test_simulated_runs_are_other_runs_where_start_and_theory_are_the_same(tiny_config: Config) -> None:
    """Within a result: the simulated seeds of two draws are other seeds, and a first seed shares none with the next."""
    one, other = (compute(get("two-phases"), replace(tiny_config("two-phases"), first_seed=seed)) for seed in (0, 1))
    runs = np.concatenate([each.overlap_simulation.isel(time=-1).values.ravel() for each in (one, other)])
    assert len(set(runs.tolist())) == runs.size


@every_experiment
def test_progress_grows_to_the_end(name: str, tiny_config: Config) -> None:
    told: list[tuple[int, int]] = []
    compute(get(name), replace(tiny_config(name), **{REPETITIONS[name][0]: 1}), lambda *now: told.append(now))
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert len(set(totals)) == 1
    assert done[-1] == totals[0]


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
        found = {i for i, verdict in enumerate(get(name).check(dataset)) if not verdict.supported}
        assert found == expected, change
        failed |= found
    assert failed == set(range(len(get(name).check(made_up.ideal())))), "each verdict fails on some data set"


@every_experiment
def test_a_figure_is_labelled_repeats_byte_for_byte_and_trains_nothing(
    name: str, tiny_result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, attribute in [
        (torch.Tensor, "backward"), (shallow, "integrate"), (shallow, "simulate"), (linear, "train"),
        (linear, "population"), (get(name), "jobs"),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, attribute, refuse)
    figure = get(name).plot(tiny_result(name))
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


@pytest.mark.slow
@every_experiment
def test_the_quick_preset_supports_what_the_documentation_says(name: str) -> None:
    experiment: Experiment = experiments.get(name)
    verdicts = experiment.check(compute(experiment, experiment.CONFIGS["quick"]))
    assert [verdict.word for verdict in verdicts] == told(name)


def test_at_most_one_part_of_a_claim_is_not_supported() -> None:
    words = [word for name in experiments.NAMES for word in told(name)]
    assert words.count("not supported") <= 1
    assert set(words) <= {"supported", "not supported"}
