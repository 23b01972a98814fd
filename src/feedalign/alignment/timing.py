"""When a layer aligns: onset, peak, and the beginning of the decline that memorisation brings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.errors import ArgumentError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moment:
    """One moment of several runs.

    Attributes:
        times: of every run, [runs]; NaN where it never came.
        mean: geometric mean over the runs in which it came, as times are spread over decades.
        factor: exp of the standard error of log-time: the mean is uncertain by × and ÷ this; NaN for fewer than two.
        missing: in how many runs it never came. They are in no mean: a mean beside many of them says little.
    """

    times: Array
    mean: float
    factor: float
    missing: int


@dataclass(frozen=True, eq=False)
class AlignmentTimes:
    """Three moments of one layer's alignment.

    Attributes:
        onset: it first reaches `level`.
        peak: it is largest; none in a run that never reached `level`.
        decline: it has sunk `drop` below its peak for good: alignment is given up for memorisation.
    """

    onset: Moment
    peak: Moment
    decline: Moment


def alignment_times(
    times: ArrayLike, alignment: ArrayLike, *, level: float = 0.2, drop: float = 0.02
) -> AlignmentTimes:
    """Find when a layer starts to align, when it peaks, and when memorisation begins, over several runs.

    Onset and decline are interpolated in log-time between measurements; the peak is the time of a measurement. Noise
    moves a peak along a flat top, which `factor` then shows; take `drop` well above the noise of a curve.

    Args:
        times: of the measurements, [t], increasing; the first may be 0.
        alignment: of one layer, [runs, t] or [t].
        level: what onset is to reach.
        drop: how far below its peak decline begins.

    Raises:
        ArgumentError: times do not increase, shapes do not fit, or `drop` is not positive.
    """
    t, curves = np.asarray(times, dtype=np.float64), np.atleast_2d(np.asarray(alignment, dtype=np.float64))
    if t.ndim != 1 or len(t) < 2 or not (np.diff(t) > 0).all() or t[0] < 0:
        raise ArgumentError("times must be a vector of at least two, increasing and not negative; sort them")
    if curves.ndim != 2 or curves.shape[1] != len(t):
        raise ArgumentError(f"alignment has shape {np.shape(alignment)}, expected [runs, {len(t)}], one for each time")
    if not drop > 0:
        raise ArgumentError(f"drop={drop} must be a positive number")
    onsets = np.array([onset(t, curve, level) for curve in curves])
    reached = (curves >= level).any(axis=1)
    peaks = np.where(reached, t[np.where(np.isnan(curves), -np.inf, curves).argmax(axis=1)], np.nan)
    declines = np.array([_decline(t, curve, drop) for curve in curves])
    return AlignmentTimes(_moment(onsets), _moment(peaks), _moment(np.where(reached, declines, np.nan)))


def onset(times: Array, curve: Array, level: float) -> float:
    """Return the first time at which a curve reaches `level`, interpolated in log-time; NaN if it never does.

    A curve that begins above it, or exceeds it by the first measurement after time 0, has no onset either.
    """
    after = int(np.argmax(curve >= level))
    return _crossing(times, curve, level, after) if after >= 2 else float("nan")


def _decline(times: Array, curve: Array, drop: float) -> float:
    """Return when a curve is last at `drop` below its peak; NaN where it ends higher."""
    level = np.nanmax(curve) - drop if not np.isnan(curve).all() else np.nan
    if not curve[-1] < level:
        return float("nan")
    after = int(np.flatnonzero(curve >= level)[-1]) + 1
    return _crossing(times, curve, level, after) if times[after - 1] > 0 else float("nan")


def _crossing(times: Array, curve: Array, level: float, after: int) -> float:
    """Return when the curve passes a level between measurements after − 1 and after."""
    values, logs = curve[after - 1 : after + 1], np.log(times[after - 1 : after + 1])
    order = np.argsort(values)  # np.interp wants them to increase
    return float(np.exp(np.interp(level, values[order], logs[order])))


def _moment(times: Array) -> Moment:
    logs = np.log(times[np.isfinite(times) & (times > 0)])
    mean = float(np.exp(logs.mean())) if logs.size else float("nan")
    factor = float(np.exp(logs.std(ddof=1) / np.sqrt(logs.size))) if logs.size > 1 else float("nan")
    return Moment(times, mean, factor, int(np.isnan(times).sum()))
