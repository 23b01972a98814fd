"""Is ConditionedDFA worth it? Measured where both rules were trained; a criterion, with its limits, where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feedalign.diagnosis.expectation import Array
from feedalign.diagnosis.training import Trained

if TYPE_CHECKING:
    from feedalign.diagnosis.result import Diagnosis

# Between these two ConditionedDFA gained nothing: learning times of two seeds of one rule differ as much.
FASTER, SLOWER = 1.1, 1 / 1.1
# Errors with a condition number below this one are well conditioned: P is then close to the identity.
WELL_CONDITIONED = 2.0


def speedup(plain: Trained, conditioned: Trained) -> float:
    """Return the steps that DFA needed over the steps that ConditionedDFA needed, to the lowest loss both reached.

    The loss is that on the probe. 1 where neither has lowered it.
    """
    target = max(plain.losses.min(), conditioned.losses.min())
    needed = [_steps_to(target, each.loss_steps, each.losses) for each in (plain, conditioned)]
    return needed[0] / needed[1] if min(needed) > 0 else 1.0


def _steps_to(target: float, steps: tuple[int, ...], losses: Array) -> float:
    """Return after how many steps the loss first was this low, straight lines between the losses known."""
    i = int(np.argmax(losses <= target))
    if i == 0:
        return 0.0
    share = (losses[i - 1] - target) / (losses[i - 1] - losses[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def advice(found: Diagnosis) -> str:
    """Say whether to use ConditionedDFA."""
    if not np.isnan(found.speedup):
        return _as_measured(found.speedup)
    if found.diverged and len(found.trained) > 1:
        return "No advice on ConditionedDFA: a network diverged, so the two rules cannot be compared."
    if any(each.conditioned for each in found.trained.values()):
        return "ConditionedDFA was not compared with DFA. To compare them, diagnose the bare model."
    condition = found.errors.spectrum.condition_number
    if condition < WELL_CONDITIONED:
        return (
            f"ConditionedDFA will change little: the errors are well conditioned ({condition:.3g}, below "
            f"{WELL_CONDITIONED:g})."
        )
    return (
        f"ConditionedDFA may help or harm: the errors are badly conditioned ({condition:.3g}, above "
        f"{WELL_CONDITIONED:g}). Measure it with compare=True, on the command line --compare."
    )


def _as_measured(times: float) -> str:
    if times > FASTER:
        return f"ConditionedDFA was {times:.1f} times faster here. Use it."
    if times < SLOWER:
        return f"ConditionedDFA was {1 / times:.1f} times slower here. Use plain DFA."
    return f"ConditionedDFA gained nothing here ({times:.2f} times as fast). Plain DFA will do."
