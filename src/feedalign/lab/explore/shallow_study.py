"""What the page computes of a shallow network: the learning curves of theory, a simulation, and the minimum picked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedalign.errors import ArgumentError, DivergenceError, TimeLimitError
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.streams import derived_seed, numpy_generator
from feedalign.style import RULE_LABELS
from feedalign.theory import shallow

Array = NDArray[np.float64]

RULES = ("dfa", "backprop")
INPUT_DIM = 500  # N of the start's finite overlaps, and of the simulation
START_STD = 0.01  # of the student's initial weights, small as theory supposes
FIRST_TIME = 0.1
# Curves on a screen need no more digits, and ReLU students of four units then take two thirds of the time.
RTOL, ATOL = 1e-6, 1e-8
# A distance from a minimum in weights, at which a reader calls the two equal.
ARRIVED = 0.1


@dataclass(frozen=True)
class ShallowSetting:
    """What a reader can choose.

    Attributes:
        activation: "erf" or "relu".
        A: second layer of the teacher, [M].
        F: feedback vector, [K].
        lr: η, learning rate of both layers.
        noise_std: σ of the label noise.
        end_time: when learning ends, in steps / N.
        seed: of teacher and start, and of the inputs of the simulation.
        simulate: whether one network of N = 500 inputs is simulated under DFA.
        max_seconds: how long each integration may take.
    """

    activation: str = "erf"
    A: tuple[float, ...] = (1.0, 0.5)
    F: tuple[float, ...] = (0.4, -1.2)
    lr: float = 0.5
    noise_std: float = 0.0
    end_time: float = 2000.0
    seed: int = 6
    simulate: bool = False
    max_seconds: float = 10.0


@dataclass(frozen=True, eq=False)
class Pick:
    """The minimum that DFA picks.

    Attributes:
        words: what is known of it.
        v: second layers to compare, [K] each, by name; empty where the minima cannot be listed.
    """

    words: str
    v: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ShallowStudy:
    """What was computed of a setting.

    Attributes:
        setting: what was asked for.
        theory: order parameters along time, by rule; a rule that diverged ends early or is missing.
        simulation: the simulated network under DFA; None if it was not asked for, or diverged.
        pick: the minimum that DFA picks; None if theory under DFA is missing.
        troubles: what went wrong, in words.
    """

    setting: ShallowSetting
    theory: dict[str, shallow.Trajectory]
    simulation: shallow.Trajectory | None
    pick: Pick | None
    troubles: tuple[str, ...]


def study(setting: ShallowSetting) -> ShallowStudy:
    """Compute everything that the page shows of a setting.

    A rule that diverges or takes too long is no error: `troubles` says so, and what there is of its curve is kept.

    Raises:
        ArgumentError: a value is out of range.
    """
    start = shallow.draw_start(
        setting.A,
        students=len(setting.F),
        input_dim=INPUT_DIM,
        rng=numpy_generator(setting.seed, "start"),
        w_std=START_STD,
        v_std=START_STD,
    )
    times = np.geomspace(FIRST_TIME, setting.end_time, 160)
    common: dict[str, Any] = {
        "feedback": setting.F, "lr": setting.lr, "activation": setting.activation, "noise_std": setting.noise_std,
    }  # fmt: skip
    troubles: list[str] = []

    def integrated(at: Array, rule: str) -> shallow.Trajectory:
        limits: dict[str, Any] = {"max_seconds": setting.max_seconds, "rtol": RTOL, "atol": ATOL}
        return shallow.integrate(start, times=at, rule=shallow_rule(rule), **limits, **common)

    def simulated(at: Array) -> shallow.Trajectory:
        steps, seed = np.unique(np.rint(at * INPUT_DIM)), derived_seed(setting.seed, "simulation")
        return shallow.simulate(start, times=steps / INPUT_DIM, input_dim=INPUT_DIM, seed=seed, **common)

    curves = {
        rule: _tried(setting, f"{RULE_LABELS[rule]}, theory", partial(integrated, rule=rule), times, troubles)
        for rule in RULES
    }
    theory = {rule: curve for rule, curve in curves.items() if curve is not None}
    # As many simulated points as can be told apart on the screen.
    simulation = _tried(setting, "DFA, simulated", simulated, times[::4], troubles) if setting.simulate else None
    pick = _pick(setting, theory["dfa"].final) if "dfa" in theory else None
    return ShallowStudy(setting, theory, simulation, pick, tuple(troubles))


def _tried(
    setting: ShallowSetting,
    name: str,
    compute: Callable[[Array], shallow.Trajectory],
    times: Array,
    troubles: list[str],
) -> shallow.Trajectory | None:
    """Return a curve as far as it is finite, None if there is nothing of it; add to `troubles` what went wrong."""
    try:
        return compute(times)
    except TimeLimitError as error:
        troubles.append(
            f"{name}: after {setting.max_seconds:g} seconds the computation had only reached the time "
            f"{error.time:.3g}. Choose a shorter time, fewer units or a smaller learning rate."
        )
        return None
    except DivergenceError as error:
        troubles.append(f"{name}: {error}.")
        before = times[times < error.time]
    try:
        return compute(before) if len(before) else None
    except (DivergenceError, TimeLimitError):  # close to the divergence, other steps of the solver can end elsewhere
        return None


def _pick(setting: ShallowSetting, final: shallow.OrderParameters) -> Pick:
    """Say which minimum DFA picks, as far as theory tells, and where the curve has come to."""
    if setting.activation == "relu":
        return _relu_pick(setting, final)
    if len(setting.A) != len(setting.F):
        words = "The minima are signed orders of A only where K = M. Make K and M equal to see which one DFA picks."
        return Pick(words)
    if len(set(np.abs(setting.F))) < len(setting.F):
        return Pick(
            "Two entries of F have the same size: nothing but the start tells their units apart. Move one of them."
        )
    try:
        predicted = shallow.predicted_minimum(setting.A, setting.F, T=final.T)
    except ArgumentError as error:
        return Pick(f"There is no prediction: {error}.")
    largest = shallow.selected_solution(setting.A, setting.F)
    reached, distance = shallow.nearest_minimum(final)
    v = {"v": final.v, "predicted": predicted, "largest v·F": largest}
    if distance > ARRIVED:
        place = f"The student has not arrived at any minimum yet; the nearest is {distance:.2g} away."
    elif np.array_equal(reached.v, predicted):
        place = "The student has arrived at the predicted minimum."
    else:
        place = "The student has arrived at another minimum than the predicted one."
    return Pick(f"A and F alone predict which minimum DFA picks. {place}", v)


def _relu_pick(setting: ShallowSetting, final: shallow.OrderParameters) -> Pick:
    """Say whether a ReLU student can learn its teacher: F must have enough entries of each sign."""
    A, F = np.array(setting.A), np.array(setting.F)
    counts = (
        f"F has {(F > 0).sum()} positive and {(F < 0).sum()} negative entries; "
        f"A has {(A > 0).sum()} positive and {(A < 0).sum()} negative ones."
    )
    answer = (
        "A ReLU student can learn this teacher: F has enough entries of each sign."
        if shallow.can_recover(A, F)
        else "A ReLU student cannot learn this teacher: F has too few entries of one sign."
    )
    return Pick(f"{answer} {counts}", {"v": final.v})
