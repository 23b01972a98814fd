"""What every experiment promises of its result: names, units, random streams, repetitions and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tests.cases.repetitions import REPETITIONS, every_experiment

from feedalign.rules import RULES
from feedalign.style import FEEDBACK_LABELS

# Coordinates that mean nothing without a unit.
WITH_UNITS = {"time", "late_time", "epoch", "step"}

Result = Callable[[str], xr.Dataset]
Run = Callable[..., Any]


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
def test_a_run_repeats_bit_for_bit_and_more_repetitions_keep_the_first(name: str, tiny_run: Run) -> None:
    field, dim, _ = REPETITIONS[name]
    once = tiny_run(name, **{field: 1})
    assert once.left_alone, "the global random number generators are nobody's"
    xr.testing.assert_identical(once.result, tiny_run(name).result.isel({dim: slice(1)}))


@every_experiment
def test_another_first_seed_gives_another_result(name: str, tiny_run: Run) -> None:
    first = {REPETITIONS[name][1]: slice(1)}
    assert not tiny_run(name, first_seed=1).result.isel(first).equals(tiny_run(name).result.isel(first))


@every_experiment
def test_the_first_seed_decides_every_random_stream(name: str, tiny_run: Run) -> None:
    """Neighbouring first seeds too: runs must not count on from the first seed, or the two would share runs."""
    one, first, second = tiny_run(name, **{REPETITIONS[name][0]: 1}), tiny_run(name), tiny_run(name, first_seed=1)
    assert one.streams
    assert one.streams <= first.streams, "a run that is repeated begins the same streams"
    assert len(first.streams) == len(second.streams)
    assert not first.streams & second.streams


@pytest.mark.parametrize(("name", "rule"), [("conditioned-feedback", "dfa"), ("conditioned-feedback", "backprop")])
def test_each_rule_sees_other_random_inputs(name: str, rule: str, tiny_run: Run) -> None:
    one, other = (tiny_run(name, **change).result.steps.sel(rule=rule) for change in ({}, {"first_seed": 1}))
    assert not other.equals(one)


def test_simulated_runs_are_other_runs_where_start_and_theory_are_the_same(tiny_run: Run) -> None:
    """Within a result: the simulated seeds of two draws are other seeds, and a first seed shares none with the next."""
    results = [tiny_run("two-phases", **change).result for change in ({}, {"first_seed": 1})]
    runs = np.concatenate([each.overlap_simulation.isel(time=-1).values.ravel() for each in results])
    assert len(set(runs.tolist())) == runs.size


@every_experiment
def test_progress_grows_to_the_end(name: str, tiny_run: Run) -> None:
    done, totals = zip(*tiny_run(name).told, strict=True)
    assert list(done) == sorted(done)
    assert len(set(totals)) == 1
    assert done[-1] == totals[0]
