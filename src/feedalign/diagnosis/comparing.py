"""Is ConditionedDFA worth it? Measured where both rules were trained; a criterion, with its limits, where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from feedalign.diagnosis.result import Diagnosis
    from feedalign.diagnosis.training import Trained

# Between these two ConditionedDFA gained nothing: learning times of two seeds of one rule differ as much.
FASTER, SLOWER = 1.1, 1 / 1.1
# Errors with a condition number below this one are well conditioned: P is then close to the identity.
WELL_CONDITIONED = 2.0


def speedup(plain: Trained, conditioned: Trained) -> float:
    """Return the steps that DFA needed over the steps that ConditionedDFA needed, to the lowest loss both reached.

    The loss is that on the probe. 1 where neither has lowered it.
    """
    target = max(plain.losses.min(), conditioned.losses.min())
    needed = [_steps_to(target, each) for each in (plain, conditioned)]
    return needed[0] / needed[1] if min(needed) > 0 else 1.0


def _steps_to(target: float, net: Trained) -> float:
    """Return after how many steps the loss first was this low, straight lines between the losses known."""
    i = int(np.argmax(net.losses <= target))
    # np.interp wants increasing abscissae: the loss before, which was higher, comes second.
    return float(np.interp(target, net.losses[[i, i - 1]], np.take(net.loss_steps, [i, i - 1]))) if i else 0.0


def advice(found: Diagnosis) -> str:
    """Say whether to use ConditionedDFA."""
    times, condition = found.speedup, found.errors.spectrum.condition_number
    if times > FASTER:
        return f"ConditionedDFA was {times:.1f} times faster here. Use it."
    if times < SLOWER:
        return f"ConditionedDFA was {1 / times:.1f} times slower here. Use plain DFA."
    if not np.isnan(times):
        return f"ConditionedDFA gained nothing here ({times:.2f} times as fast). Plain DFA will do."
    if found.diverged and len(found.trained) > 1:
        return "No advice on ConditionedDFA: a network diverged, so the two rules cannot be compared."
    if any(each.conditioned for each in found.trained.values()):
        return "ConditionedDFA was not compared with DFA. To compare them, diagnose the bare model."
    if condition < WELL_CONDITIONED:
        return (
            f"ConditionedDFA will change little: the errors are well conditioned ({condition:.3g}, below "
            f"{WELL_CONDITIONED:g})."
        )
    return (
        f"ConditionedDFA may help or harm: the errors are badly conditioned ({condition:.3g}, above "
        f"{WELL_CONDITIONED:g}). Measure it with compare=True, on the command line --compare."
    )
