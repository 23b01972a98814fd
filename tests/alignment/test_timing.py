"""Moments of alignment on curves made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from feedalign.alignment import alignment_times
from feedalign.errors import ArgumentError

TIMES = np.array([0.0, 1.0, 10.0, 100.0, 1000.0])
RISES = np.array([0.0, 0.1, 0.3, 0.8, 0.6])


def test_the_three_moments_of_one_run() -> None:
    found = alignment_times(TIMES, RISES, level=0.2, drop=0.1)
    assert found.onset.mean == pytest.approx(10**0.5)  # half way between 0.1 and 0.3, in log-time
    assert found.peak.mean == pytest.approx(100)
    assert found.decline.mean == pytest.approx(10**2.5)
    assert np.isnan(found.onset.factor), "one run has no spread"


def test_means_are_geometric_and_missing_runs_are_counted() -> None:
    later = np.array([0.0, 0.0, 0.1, 0.3, 0.8])
    never = np.array([0.0, 0.0, 0.1, 0.1, 0.15])
    found = alignment_times(TIMES, [RISES, later, never], level=0.2, drop=0.1)
    np.testing.assert_allclose(found.onset.times, [10**0.5, 10**1.5, np.nan])
    assert found.onset.mean == pytest.approx(10)
    # Logarithms half a decade to each side: standard deviation √½ decades over √2.
    assert found.onset.factor == pytest.approx(10**0.5)
    assert found.onset.missing == 1
    np.testing.assert_allclose(found.peak.times, [100, 1000, np.nan])
    assert found.decline.missing == 2


def test_scaling_time_scales_every_moment() -> None:
    one, other = (alignment_times(scale * TIMES, RISES, drop=0.1) for scale in (1.0, 7.0))
    for a, b in zip((one.onset, one.peak, one.decline), (other.onset, other.peak, other.decline), strict=True):
        assert b.mean == pytest.approx(7 * a.mean)


def test_a_curve_that_recovers_has_not_declined() -> None:
    assert alignment_times(TIMES, [0.0, 0.3, 0.8, 0.5, 0.79], drop=0.1).decline.missing == 1


def test_an_onset_after_the_first_measurement_counts_where_that_is_not_at_time_zero() -> None:
    steep = [0.1, 0.3, 0.8]
    assert alignment_times([1, 10, 100], steep, level=0.2).onset.mean == pytest.approx(10**0.5)
    assert alignment_times([0, 10, 100], steep, level=0.2).onset.missing == 1
    assert alignment_times([1, 10, 100], steep, level=0.1).onset.missing == 1


def test_missing_measurements_are_no_peak_and_no_run_is_needed_to_reach_the_level() -> None:
    found = alignment_times(TIMES, [[0.0, 0.1, 0.3, np.nan, 0.6], [np.nan] * 5], drop=0.1)
    np.testing.assert_allclose(found.peak.times, [1000, np.nan])
    assert (found.onset.missing, found.decline.missing) == (1, 2)


@pytest.mark.parametrize(
    ("times", "curves", "options", "message"),
    [
        ([0, 1, 1], [0, 0, 0], {}, "times must be a vector of at least two numbers that increase"),
        ([-1, 1], [0, 0], {}, "times must be a vector of at least two numbers that increase and are not negative"),
        ([0], [0], {}, "times must be a vector of at least two"),
        ([[0, 1]], [0, 0], {}, "times must be a vector of at least two"),
        ([0, np.inf], [0, 0], {}, "times must hold finite numbers only"),
        (["a", "b"], [0, 0], {}, "times must be an array of real numbers"),
        ([0, 1, 2], [0, 0], {}, r"expected \[runs, 3\]"),
        ([0, 1], [[[0, 0]]], {}, r"alignment has shape \[1, 1, 2\], expected \[runs, 2\] or \[2\]"),
        ([0, 1], [0, 1j], {}, "alignment must be an array of real numbers"),
        ([0, 1], [0, 0], {"drop": 0.0}, "drop must be a finite number above 0, got 0.0"),
        ([0, 1], [0, 0], {"drop": "0.1"}, "drop must be a finite number above 0, got '0.1'"),
        ([0, 1], [0, 0], {"drop": True}, "drop must be a finite number above 0, got True"),
        ([0, 1], [0, 0], {"level": np.nan}, "level must be a finite number, got nan"),
    ],
)
def test_bad_input(times: Any, curves: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        alignment_times(times, curves, **options)
