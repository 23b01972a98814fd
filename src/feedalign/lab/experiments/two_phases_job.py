"""The job of the experiment two-phases: one teacher, start and feedback, in theory and in simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from feedalign.lab.experiments.common.grid import in_turn
from feedalign.lab.experiments.common.shallow_runs import QUANTITIES, log_times
from feedalign.lab.runs import Desk, Job
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.streams import derived_seed, numpy_generator
from feedalign.theory import shallow

ACTIVATIONS = ("erf", "relu")
RULES = ("dfa", "backprop")
SIGNS = (1, -1)
UNITS = {"units": "steps / input dimension"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all draws have in common.

    Attributes:
        input_dim: N of the simulation.
        hidden: K = M.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        end_time: of theory and simulation, in steps / N.
        late_time: end of the longer integration that follows the readout to its solution, under F and −F.
        measurements: number of measured times after time 0, evenly spaced in log time.
        seeds: simulated runs per draw and rule.
        first_seed: seed from which every draw gets its own.
    """

    input_dim: int = 500
    hidden: int = 2
    lr: float = 0.1
    weight_scale: float = 0.01
    end_time: float = 1000.0
    late_time: float = 30_000.0
    measurements: int = 40
    seeds: int = 6
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Students(Setting, Job):
    """An erf and a ReLU student of one teacher, from one start, under both rules.

    Attributes:
        draw: number of the draw.
    """

    kind = "two-phases-students"
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Integrate and simulate both students."""
        students = [self._student(activation) for activation in in_turn(desk, ACTIVATIONS)]
        return xr.concat(students, "activation").assign_coords(
            activation=list(ACTIVATIONS),
            rule=list(RULES),
            sign=("sign", list(SIGNS), {"long_name": "factor of the feedback"}),
        )

    def _student(self, activation: str) -> xr.Dataset:
        N, K = self.input_dim, self.hidden
        rng = numpy_generator(self.first_seed, "start", self.draw)
        start = shallow.OrderParameters.from_weights(
            w=self.weight_scale * rng.standard_normal((K, N)),
            w_teacher=rng.standard_normal((K, N)),
            v=self.weight_scale * rng.standard_normal(K),
            A=np.ones(K),
        )
        feedback = shallow.draw_feedback("random" if activation == "erf" else "positive", start, rng)
        setting: dict[str, Any] = {"lr": self.lr, "activation": activation}
        rules = [shallow_rule(rule) for rule in RULES]
        times = log_times(self.end_time, self.measurements, N)
        theory = [shallow.integrate(start, feedback=feedback, rule=rule, times=times, **setting) for rule in rules]
        # One thread: other jobs use the other cores.
        seeds = [derived_seed(self.first_seed, "simulation", self.draw, i) for i in range(self.seeds)]
        simulation: dict[str, Any] = {"times": times, "input_dim": N, "seeds": seeds, "threads": 1}
        runs = [shallow.simulate(start, feedback=feedback, rule=rule, **simulation, **setting) for rule in rules]
        late_times = np.concatenate([[0.0], np.geomspace(0.1, self.late_time, 2 * self.measurements)])
        late = [shallow.integrate(start, feedback=sign * feedback, times=late_times, **setting) for sign in SIGNS]
        curves: dict[str, Any] = {}
        for name in QUANTITIES:
            curves[f"{name}_theory"] = (("rule", "time"), [getattr(each, name) for each in theory])
            curves[f"{name}_simulation"] = (("rule", "seed", "time"), [getattr(each, name) for each in runs])
        return xr.Dataset(
            curves
            | {
                "feedback": ("unit", feedback),
                "late_readout": (
                    ("sign", "late_time", "unit"),
                    [each.v for each in late],
                    {"long_name": "v under DFA with sign · F, theory"},
                ),
                "late_error": (
                    ("sign", "late_time"),
                    [each.generalisation_error for each in late],
                    {"long_name": "ε_g under DFA with sign · F, theory"},
                ),
            },
            coords={"time": ("time", times, UNITS), "late_time": ("late_time", late_times, UNITS)},
        )
