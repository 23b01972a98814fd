"""Moments of alignment on curves made by hand."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("times", "curves", "options", "message"),
    [
        ([0, 1, 1], [0, 0, 0], {}, "times must be a vector of at least two, increasing"),
        ([0], [0], {}, "times must be a vector of at least two"),
        ([0, 1, 2], [0, 0], {}, r"expected \[runs, 3\]"),
        ([0, 1], [0, 0], {"drop": 0.0}, "drop=0.0 must be a positive number"),
    ],
)
def test_bad_input(times: list[float], curves: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        alignment_times(times, curves, **options)
