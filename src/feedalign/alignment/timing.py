"""When a layer aligns: onset, peak, and the beginning of a decline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, finite_array, finite_number, positive_number, real_array
from feedalign.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Moment:
    """When one thing happened in each of several runs.

    Attributes:
        times: the time in each run, [runs]; NaN for a run in which it never happened.
        mean: geometric mean over the runs in which it happened, since times are spread over decades.
        factor: exp of the standard error of log-time: the mean is uncertain by × and ÷ this factor. NaN where it
            happened in fewer than two runs.
        missing: number of runs in which it never happened. These runs are not in the mean: beside many missing runs a
            mean says little.
    """

    times: Array
    mean: float
    factor: float
    missing: int


@dataclass(frozen=True, eq=False)
class AlignmentTimes:
    """Three moments of the alignment of one layer.

    Attributes:
        onset: when alignment first reaches `level`.
        peak: when alignment is largest; never in a run whose alignment does not reach `level`.
        decline: when alignment has sunk `drop` below its peak for good. A decline alone does not show that the network
            memorises: a run without label noise is the control. Never in a run whose alignment does not reach `level`.
    """

    onset: Moment
    peak: Moment
    decline: Moment


def alignment_times(
    times: ArrayLike, alignment: ArrayLike, *, level: float = 0.2, drop: float = 0.02
) -> AlignmentTimes:
    """Find when a layer starts to align, when it peaks, and when it declines, over several runs.

    Onset and decline are interpolated in log-time between measurements. The peak is the time of a measurement. Where
    the top of a curve is flat, noise moves the peak along the top, and `factor` shows that. Choose `drop` well above
    the noise of a curve.

    Args:
        times: of the measurements, [t], increasing; the first may be 0.
        alignment: of one layer, [runs, t] or [t]; NaN for a measurement that is missing.
        level: the alignment at which onset is.
        drop: how far below the peak decline is.

    Raises:
        ArgumentError: `times` are no two or more finite numbers that increase from 0 or more, `alignment` has another
            shape or holds no real numbers, `level` is no finite number, or `drop` is no finite number above 0.
    """
    level, drop = finite_number("level", level), positive_number("drop", drop)
    t, curves = finite_array("times", times), np.atleast_2d(real_array("alignment", alignment))
    if t.ndim != 1 or len(t) < 2 or not (np.diff(t) > 0).all() or t[0] < 0:
        raise ArgumentError(
            "times must be a vector of at least two numbers that increase and are not negative, got "
            f"{np.array2string(t, threshold=8)}; sort the times, and the measurements with them"
        )
    if curves.ndim != 2 or curves.shape[1] != len(t):
        raise ArgumentError(
            f"alignment has shape {list(np.shape(alignment))}, expected [runs, {len(t)}] or [{len(t)}], one for each "
            "of the times"
        )
    onsets = np.array([onset(t, curve, level) for curve in curves])
    reached = (curves >= level).any(axis=1)
    peaks = np.where(reached, t[np.where(np.isnan(curves), -np.inf, curves).argmax(axis=1)], np.nan)
    declines = np.array([_decline(t, curve, drop) for curve in curves])
    return AlignmentTimes(_moment(onsets), _moment(peaks), _moment(np.where(reached, declines, np.nan)))


def onset(times: Array, curve: Array, level: float) -> float:
    """Return the first time at which a curve reaches `level`, interpolated in log-time; NaN if it never does.

    A curve that is at `level` in the first measurement has no onset. Neither has a curve that reaches `level` right
    after a measurement at time 0, since log-time does not reach back to 0.
    """
    after = int(np.argmax(curve >= level))
    return _crossing(times, curve, level, after) if after >= 1 and times[after - 1] > 0 else float("nan")


def _decline(times: Array, curve: Array, drop: float) -> float:
    """Return when a curve is at `drop` below its peak for the last time; NaN where the curve ends higher."""
    level = np.nanmax(curve) - drop if not np.isnan(curve).all() else np.nan
    if not curve[-1] < level:
        return float("nan")
    after = int(np.flatnonzero(curve >= level)[-1]) + 1
    return _crossing(times, curve, level, after) if times[after - 1] > 0 else float("nan")


def _crossing(times: Array, curve: Array, level: float, after: int) -> float:
    """Return when the curve passes a level between measurements after − 1 and after."""
    values, logs = curve[after - 1 : after + 1], np.log(times[after - 1 : after + 1])
    order = np.argsort(values)  # np.interp wants values that increase
    return float(np.exp(np.interp(level, values[order], logs[order])))


def _moment(times: Array) -> Moment:
    logs = np.log(times[np.isfinite(times) & (times > 0)])
    mean = float(np.exp(logs.mean())) if logs.size else float("nan")
    factor = float(np.exp(logs.std(ddof=1) / np.sqrt(logs.size))) if logs.size > 1 else float("nan")
    return Moment(times, mean, factor, int(np.isnan(times).sum()))
