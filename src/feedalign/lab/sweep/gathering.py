"""From the runs of a sweep to one data set with a row for each run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from feedalign.lab.own_training import diverged
from feedalign.lab.sweep.grid import Point, SweepConfig, controls_of

QUANTITIES = ("test_accuracy", "train_accuracy", "test_loss", "train_loss")
ALIGNMENTS = ("gradient_alignment", "weight_alignment")
UNUSED = "–"


def gather(sweep: SweepConfig, points: Sequence[Point], hashes: Sequence[str], results: Sequence[xr.Dataset]) -> Any:
    """Return a data set along `run`: final accuracies, losses and alignment, `recovery`, and the values of the grid.

    Alignment is the mean over the layers that have one. A run that diverged has none of these numbers. `diverged_at` is
    the step after which its loss was no longer finite, or its last step, where its loss had grown tenfold.

    Args:
        sweep: the sweep.
        points: its runs.
        hashes: names of their folders.
        results: what they have measured.
    """
    ends = [_end(result) for result in results]
    dataset = xr.Dataset(
        {name: ("run", [end[name] for end in ends]) for name in (*QUANTITIES, *ALIGNMENTS)}
        | {"diverged_at": ("run", [_diverged_at(result) for result in results])},
        coords={
            "folder": ("run", list(hashes)),
            "is_control": ("run", [point.is_control for point in points]),
            "rule": ("run", [point.config.rule for point in points]),
        },
    )
    accuracy = {point.config: end["test_accuracy"] for point, end in zip(points, ends, strict=True)}
    recovery = []
    for point in points:
        backprop, readout = (accuracy[config] for config in controls_of(sweep, point))
        recovery.append(share_recovered(accuracy[point.config], backprop, readout))
    dataset["recovery"] = ("run", recovery, {"long_name": "(accuracy − readout only) / (backprop − readout only)"})
    for name, _ in sweep.grid:
        texts = [text_of(point.values.get(name, UNUSED)) for point in points]
        if name != "rule":
            dataset = dataset.assign_coords({f"grid_{name}": ("run", texts)})
    return dataset


def share_recovered(accuracy: float, backprop: float, readout: float) -> float:
    """Return which share of backprop's gain over the readout alone an accuracy is; NaN if backprop gains nothing."""
    return (accuracy - readout) / (backprop - readout) if backprop > readout else math.nan


def text_of(value: Any) -> str:
    """Return a value of the grid as it is shown."""
    if isinstance(value, tuple):
        return " ".join(map(text_of, value)) or "()"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _diverged_at(result: xr.Dataset) -> float:
    known = float(result.diverged_at)
    return float(result.step[-1]) if diverged(result) and math.isnan(known) else known


def _end(result: xr.Dataset) -> dict[str, float]:
    """Return the numbers of a run's end."""
    end = result.isel(step=-1)
    if diverged(result):
        return dict.fromkeys((*QUANTITIES, *ALIGNMENTS), math.nan)
    found = {name: float(end[name]) for name in QUANTITIES}
    return found | {name: float(end[name].mean()) if name in end else np.nan for name in ALIGNMENTS}
