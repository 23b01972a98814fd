"""Verdicts on the mean of independent runs, and the level of many tests together."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from feedalign.lab.experiments.common.verdict import Verdict


def mean_verdict(
    claim: str, values: ArrayLike, threshold: float, side: Literal["above", "below"] = "above", *, of: str, sample: str
) -> Verdict:
    """Return the verdict on the mean of independent values, tested at the one-sided 95 % level of Student's t.

    Args:
        claim: a sentence that can be false.
        values: one number for each independent run, [n]; a value that is not a number makes the verdict "not
            supported".
        threshold: the number that the mean must pass.
        side: the side of the threshold on which the mean must be.
        of: what the independent runs are called: "draws" or "seeds".
        sample: what the values were taken over, with counts.

    Returns:
        effect: the mean; spread: its standard error; margin: the 95 % quantile of t with n − 1 degrees of freedom.
    """
    runs = np.asarray(values, dtype=np.float64)
    return Verdict(
        claim=claim,
        effect=float(runs.mean()),
        spread=float(stats.sem(runs)),
        threshold=threshold,
        side=side,
        sample=f"{sample}; spread: standard error over {of}, one-sided 95 % (t)",
        margin=float(stats.t.isf(0.05, len(runs) - 1)),
    )


def bonferroni(tests: int) -> float:
    """Return the level at which each of so many tests is made, so that together they err in 0.1 % of cases."""
    return 0.001 / tests
