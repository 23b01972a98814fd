"""What a check says of a claim: a mean or a share over independent runs, and whether it passes its threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# NumPy and SciPy are imported where they are used: the command line loads this module before it knows what to do, and
# help and usage errors do not wait for them.

# A part of a claim is supported if data like these would come up in less than 5 % of cases at the threshold itself.
LEVEL = 0.05

Side = Literal["above", "below"]


@dataclass(frozen=True)
class Verdict:
    """One part of a claim, tested against the data.

    The spread is the same in every verdict: the standard error over independent runs. What is averaged within a run
    (seeds, layers, pairs) does not count as further runs. `of_mean`, `of_difference` and `of_share` make verdicts from
    runs.

    Attributes:
        claim: a sentence that can be false.
        effect: the mean over runs, or the share of runs.
        standard_error: of the effect, over independent runs.
        threshold: the number that the effect must pass.
        side: the side of the threshold on which the effect must be, "above" or "below".
        sample: what one independent run is, and what was averaged within a run.
        runs: number of independent runs.
        kind: "mean": tested by Student's t; "share": tested by the exact binomial distribution.
    """

    claim: str
    effect: float
    standard_error: float
    threshold: float
    side: Side
    sample: str
    runs: int
    kind: Literal["mean", "share"] = "mean"

    def __post_init__(self) -> None:
        """Turn NumPy's numbers into Python's own, which json takes."""
        for name in ("effect", "standard_error", "threshold"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "runs", int(self.runs))

    @classmethod
    def of_mean(
        cls, claim: str, values: ArrayLike, threshold: float = 0.0, side: Side = "above", *, sample: str
    ) -> Verdict:
        """Return the verdict on the mean of one number for each independent run.

        Args:
            claim: a sentence that can be false.
            values: one number for each independent run, [n]. A value that is not a number makes the verdict "not
                supported".
            threshold: the number that the mean must pass.
            side: the side of the threshold on which the mean must be.
            sample: what one independent run is, and what was averaged within a run.
        """
        import numpy as np

        numbers = np.asarray(values, dtype=np.float64)
        n = numbers.size
        error = numbers.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
        return cls(claim, numbers.mean() if n else math.nan, error, threshold, side, sample, n)

    @classmethod
    def of_difference(
        cls,
        claim: str,
        ours: ArrayLike,
        theirs: ArrayLike,
        threshold: float = 0.0,
        side: Side = "above",
        *,
        sample: str,
    ) -> Verdict:
        """Return the verdict on the mean of ours − theirs, taken run by run, [n] each."""
        import numpy as np

        return cls.of_mean(claim, np.subtract(ours, theirs), threshold, side, sample=sample)

    @classmethod
    def of_share(cls, claim: str, hits: ArrayLike, threshold: float, side: Side = "above", *, sample: str) -> Verdict:
        """Return the verdict on the share of independent runs in which something is so.

        Args:
            claim: a sentence that can be false.
            hits: True or False for each independent run, [n]. NaN stands for a run that is lost, and makes the verdict
                "not supported".
            threshold: the share that must be passed.
            side: the side of the threshold on which the share must be.
            sample: what one independent run is.
        """
        import numpy as np

        counted = np.asarray(hits, dtype=np.float64)  # as truth values, lost runs would be hits
        n = counted.size
        share = float(counted.mean()) if n else math.nan
        error = math.sqrt(share * (1 - share) / n) if n else math.nan
        return cls(claim, share, error, threshold, side, sample, n, "share")

    @property
    def judged(self) -> bool:
        """Whether there are at least two independent runs: from a single one nothing can be concluded."""
        return self.runs > 1

    @property
    def p_value(self) -> float:
        """Probability of an effect at least as far on the right side, if the true effect is at the threshold.

        NaN if the effect is not a number, or if there are fewer than two runs.
        """
        if not self.judged or not all(map(math.isfinite, (self.effect, self.standard_error, self.threshold))):
            return math.nan
        from scipy import stats

        if self.kind == "share":
            expected = min(max(self.threshold, 0.0), 1.0)
            alternative = "greater" if self.side == "above" else "less"
            return float(stats.binomtest(self._hits, self.runs, expected, alternative).pvalue)
        beyond = (self.effect - self.threshold) * (1 if self.side == "above" else -1)
        if self.standard_error == 0:  # all runs gave the same number
            return 0.0 if beyond > 0 else 1.0
        return float(stats.t.sf(beyond / self.standard_error, self.runs - 1))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the effect: Student's t for a mean, exact binomial for a share."""
        if not self.judged or not math.isfinite(self.effect):
            return (math.nan, math.nan)
        from scipy import stats

        if self.kind == "share":
            exact = stats.binomtest(self._hits, self.runs).proportion_ci()
            return (float(exact.low), float(exact.high))
        half = float(stats.t.isf(0.025, self.runs - 1)) * self.standard_error
        return (self.effect - half, self.effect + half)

    @property
    def margin(self) -> float:
        """How far beyond the threshold a mean with this standard error must be to be supported; 0 for a share.

        The exact test of a share has no such distance.
        """
        if self.kind == "share" or not self.judged:
            return 0.0
        from scipy import stats

        return float(stats.t.isf(LEVEL, self.runs - 1)) * self.standard_error

    @property
    def supported(self) -> bool:
        """Whether the p-value is below 5 %; False if there is none."""
        return bool(self.p_value < LEVEL)

    @property
    def word(self) -> str:
        """The verdict in words."""
        if not self.judged:
            return "cannot be judged"
        return "supported" if self.supported else "not supported"

    @property
    def numbers(self) -> str:
        """Effect, interval, threshold and number of runs, for people."""
        low, high = self.interval
        over = f"{self.runs} independent run" + ("" if self.runs == 1 else "s")
        if not self.judged:
            return f"{self.effect:.3g}, expected {self.side} {self.threshold:.3g}, {over}: two are needed"
        return f"{self.effect:.3g} [{low:.3g}, {high:.3g}], expected {self.side} {self.threshold:.3g}, {over}"

    @property
    def _hits(self) -> int:
        return round(self.effect * self.runs)


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict with the largest p-value; one without a p-value comes first.

    A claim about each of several groups is supported if the weakest group's verdict is. No correction is needed: the
    claim is false as soon as one group fails, and then that group passes with a probability of at most 5 %.
    """
    return max(verdicts, key=lambda verdict: math.inf if math.isnan(verdict.p_value) else verdict.p_value)


def weakest_of(
    claim: str, groups: Mapping[str, ArrayLike], threshold: float = 0.0, side: Side = "above", *, sample: str
) -> Verdict:
    """Return the weakest verdict on a mean over the runs of each group; its sample names the group.

    Args:
        claim: a sentence that can be false.
        groups: one number for each independent run, [n], by the name of the group.
        threshold: the number that the mean of every group must pass.
        side: the side of the threshold on which the means must be.
        sample: what one independent run is, and what was averaged within a run.
    """
    return weakest(
        Verdict.of_mean(claim, values, threshold, side, sample=f"{sample}; {name}") for name, values in groups.items()
    )


def verdicts_on(
    sample: str, parts: Mapping[str, tuple[ArrayLike | Mapping[str, ArrayLike], Side, float]]
) -> list[Verdict]:
    """Return the verdicts on several means over the same independent runs.

    Args:
        sample: what one independent run is, and what was averaged within a run.
        parts: by claim: one number for each independent run, [n]; the side of the threshold on which the mean must be;
            the threshold. Several groups by name, [n] each, can stand in the place of the numbers. Then the claim is
            about each group, and the weakest group's verdict counts.
    """
    return [
        weakest_of(claim, values, threshold, side, sample=sample)
        if isinstance(values, Mapping)
        else Verdict.of_mean(claim, values, threshold, side, sample=sample)
        for claim, (values, side, threshold) in parts.items()
    ]


def holm(verdicts: Sequence[Verdict]) -> list[float]:
    """Return Holm's corrected p-value of every verdict: all that stay below 5 % are together wrong in 5 % of cases.

    A verdict without a p-value counts as one with p = 1.
    """
    import numpy as np

    p = np.array([1.0 if math.isnan(each.p_value) else each.p_value for each in verdicts])
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(each) for each in corrected]
