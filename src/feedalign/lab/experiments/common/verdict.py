"""What a check says of a claim: the number that decides, how it varies, what it had to pass, and whether it did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """One part of a claim, tested against the data.

    Attributes:
        claim: a sentence that can be false.
        effect: the number that decides.
        spread: how much the effect varies; `sample` says over what.
        threshold: the number that the effect must pass.
        side: the side of the threshold on which the effect must be, "above" or "below".
        sample: what effect and spread were taken over, with counts.
        margin: by how many spreads the effect must pass the threshold.
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
        """Whether the effect passes the threshold; False if effect or spread is not a number."""
        if math.isnan(self.effect) or math.isnan(self.spread):
            return False
        if self.side == "above":
            return self.effect - self.margin * self.spread > self.threshold
        return self.effect + self.margin * self.spread < self.threshold

    @property
    def word(self) -> str:
        """The verdict in words."""
        return "supported" if self.supported else "not supported"
