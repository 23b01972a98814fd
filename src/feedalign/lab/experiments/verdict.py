"""What a check says of a claim: the number it looked at, how that spreads, what it had to pass, and whether it did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """One claim held against the data.

    Attributes:
        claim: a sentence that can be false.
        effect: the number that decides.
        spread: how far the effect varies; `sample` says over what.
        threshold: what the effect has to pass.
        side: "above" or "below" the threshold.
        sample: what spread and effect were taken over, with counts.
        margin: how many spreads away from the threshold the effect has to be.
    """

    claim: str
    effect: float
    spread: float
    threshold: float
    side: Literal["above", "below"]
    sample: str
    margin: float = 0.0

    @property
    def supported(self) -> bool:
        """Whether the effect passes; never if effect or spread is not a number."""
        if math.isnan(self.effect) or math.isnan(self.spread):
            return False
        if self.side == "above":
            return self.effect - self.margin * self.spread > self.threshold
        return self.effect + self.margin * self.spread < self.threshold

    @property
    def word(self) -> str:
        """The verdict in words."""
        return "supported" if self.supported else "not supported"
