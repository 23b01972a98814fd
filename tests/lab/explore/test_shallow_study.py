"""What the page shows of shallow networks is what the theory says."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from feedalign.errors import ArgumentError
from feedalign.lab.explore.shallow_study import ShallowSetting, study
from feedalign.theory import shallow

SETTING = ShallowSetting(end_time=300.0)


def test_the_curves_are_those_of_the_theory() -> None:
    """Within a thousandth of the curves that `integrate` gives with its own, tighter tolerances."""
    found = study(replace(SETTING, noise_std=0.3))
    assert found.troubles == ()
    assert list(found.theory) == ["dfa", "backprop"]
    for rule, curve in found.theory.items():
        exact = shallow.integrate(
            curve.start,
            feedback=SETTING.F,
            lr=SETTING.lr,
            times=curve.times,
            noise_std=0.3,
            rule="dfa" if rule == "dfa" else "bp",
        )
        for name in ("Q", "R", "v", "overlap"):
            np.testing.assert_allclose(getattr(curve, name), getattr(exact, name), rtol=0, atol=1e-3)
        np.testing.assert_allclose(curve.generalisation_error, exact.generalisation_error, rtol=0, atol=1e-3)


def test_both_rules_have_the_same_start_and_the_seed_decides_it() -> None:
    one, again, other = study(SETTING), study(SETTING), study(replace(SETTING, seed=7))
    starts = [found.theory[rule].start for found in (one, again, other) for rule in ("dfa", "backprop")]
    first = starts[0].covariance
    assert all(np.array_equal(start.covariance, first) for start in starts[:4])
    assert not np.array_equal(starts[4].covariance, first)


def test_the_simulation_starts_where_theory_does_and_follows_it() -> None:
    found = study(replace(SETTING, simulate=True))
    assert found.simulation is not None
    theory = found.theory["dfa"]
    assert found.simulation.start is theory.start
    expected = np.interp(found.simulation.times, theory.times, theory.overlap)
    # One run at N = 500: its fluctuations are of the size 1/√N = 0.04. Larger bounds are those of a slow drift.
    assert np.abs(found.simulation.overlap - expected).mean() < 0.1
    assert found.theory.keys() == study(SETTING).theory.keys()


def test_no_simulation_unless_asked_for() -> None:
    assert study(SETTING).simulation is None


@pytest.mark.parametrize(("A", "F"), [((1.0, 0.5), (0.4, -1.2)), ((1.3, 0.5), (-1.5, 0.6))])
def test_dfa_arrives_at_the_predicted_minimum(A: tuple[float, ...], F: tuple[float, ...]) -> None:
    found = study(replace(SETTING, A=A, F=F, end_time=2000.0))
    assert found.pick is not None
    assert "has arrived at the predicted minimum" in found.pick.words
    assert list(found.pick.v) == ["v", "predicted", "largest v·F"]
    np.testing.assert_allclose(found.pick.v["v"], found.pick.v["predicted"], atol=0.1)
    np.testing.assert_array_equal(found.pick.v["predicted"], shallow.predicted_minimum(A, F))
    np.testing.assert_array_equal(found.pick.v["largest v·F"], shallow.selected_solution(A, F))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end_time": 10.0}, "has not arrived at any minimum yet"),
        ({"F": (1.0, 0.5, -0.3)}, "only where K = M"),
        ({"F": (0.0, 1.0)}, "no prediction: F must have no zero entry"),
        ({"F": (1.0, -1.0)}, "Two entries of F have the same size"),
        ({"activation": "relu", "F": (1.0, 0.5)}, "can learn this teacher"),
        ({"activation": "relu", "F": (1.0, -0.5)}, "cannot learn this teacher.* 1 positive and 1 negative entries"),
    ],
)
def test_the_pick_is_told_in_words(changes: dict[str, Any], words: str) -> None:
    found = study(replace(SETTING, **changes))
    assert found.pick is not None
    assert re.search(words, found.pick.words)


def test_a_time_limit_is_told_in_words() -> None:
    found = study(replace(SETTING, max_seconds=1e-9))
    assert found.theory == {}
    assert found.pick is None
    assert len(found.troubles) == 2
    assert found.troubles[0].startswith("DFA, theory: after 1e-09 seconds")
    assert found.troubles[1].startswith("backprop, theory: after 1e-09 seconds")
    assert all(
        "Choose a shorter time, fewer units or a smaller learning rate." in trouble for trouble in found.troubles
    )


def test_a_divergence_is_told_in_the_words_of_the_error_and_the_curve_is_kept_until_then() -> None:
    setting = replace(SETTING, activation="relu", lr=5.0, F=(0.4, 1.2), simulate=True)
    found = study(setting)
    (trouble,) = found.troubles
    assert re.fullmatch(
        r"DFA, simulated: the simulation diverged at t = [\d.]+; lower lr=5\.0 or stop before\.", trouble
    )
    assert found.simulation is not None
    assert found.simulation.times[-1] < float(re.findall(r"t = ([\d.]+)", trouble)[0])
    assert len(found.simulation.times) < len(study(replace(setting, lr=0.1)).simulation.times)  # type: ignore[union-attr]


def test_a_curve_that_diverges_before_its_first_time_is_left_out() -> None:
    found = study(replace(SETTING, activation="relu", lr=31.0, F=(2.0, 2.0), simulate=True))
    assert found.simulation is None
    assert "the simulation diverged" in found.troubles[0]
    assert list(found.theory) == ["dfa", "backprop"]


def test_a_value_out_of_range_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="lr must be"):
        study(replace(SETTING, lr=-1.0))
