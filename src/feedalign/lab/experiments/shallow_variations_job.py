"""The job of the experiment shallow-variations: one draw in every variation of the setting, theory and simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from feedalign.lab.experiments.common.grid import in_turn
from feedalign.lab.experiments.common.shallow_runs import QUANTITIES, log_times
from feedalign.lab.runs import Desk, Job
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.streams import derived_seed, numpy_generator
from feedalign.theory import shallow

RULES = ("dfa", "backprop")
MOST_UNITS = 4
LEARNED = 0.1  # of ε_g / ε_g(0); ReLU students that do not learn stay above 0.4


@dataclass(frozen=True)
class Variation:
    """One variation of the plain setting, which the defaults describe.

    Attributes:
        units: K = M.
        readout: second layer A of the teacher, as `shallow.draw_readout` names it.
        feedback: F, as `shallow.draw_feedback` names it; "turned" is "positive" with the first entry's sign turned.
        start: of the student. "small": all weights are small. "zero": all weights are zero. "large readout": the first
            layer is small, the second is N(0, 1). "informed": both layers are the teacher's, with some noise.
        noisy: whether there is noise on the labels.
        activation: "erf" or "relu".
    """

    units: int = 2
    readout: Literal["uniform", "alternating"] = "uniform"
    feedback: Literal["random", "positive", "orthogonal", "initial", "turned"] = "random"
    start: Literal["small", "zero", "large readout", "informed"] = "small"
    noisy: bool = False
    activation: Literal["erf", "relu"] = "erf"


VARIATIONS = {
    "plain": Variation(),
    "noise": Variation(noisy=True),
    "alternating": Variation(readout="alternating"),
    "positive": Variation(feedback="positive"),
    "four units": Variation(units=4),
    "orthogonal": Variation(units=4, feedback="orthogonal"),
    "relu": Variation(readout="alternating", activation="relu"),
    "zero": Variation(start="zero"),
    "large readout": Variation(start="large readout"),
    "own readout": Variation(start="large readout", feedback="initial"),
    "informed": Variation(start="informed", feedback="positive"),
    "informed, turned": Variation(start="informed", feedback="turned"),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all draws have in common.

    Attributes:
        input_dim: N of starts and simulation.
        lr: η of both layers.
        weight_scale: standard deviation of small weights.
        spread: standard deviation of the noise on the teacher's weights in an informed start.
        noise_std: σ of the label noise, in the variation that has it.
        end_time: of simulation and of the curves in theory, in steps / N.
        late_time: until when the theory of DFA is followed, in steps / N.
        measurements: number of measured times after time 0, evenly spaced in log time.
        seeds: simulated runs per draw and variation.
        first_seed: seed from which every draw gets its own.
    """

    input_dim: int = 300
    lr: float = 0.1
    weight_scale: float = 0.01
    spread: float = 0.2
    noise_std: float = 0.5
    end_time: float = 500.0
    late_time: float = 30_000.0
    measurements: int = 40
    seeds: int = 1
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Students(Setting, Job):
    """A student in every variation. Variations with the same number of units share their random numbers.

    Attributes:
        draw: number of the draw.
    """

    kind = "shallow-variations-students"
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Integrate and simulate every student."""
        students = [self._student(variation) for variation in in_turn(desk, list(VARIATIONS.values()))]
        return xr.concat(students, "variation").assign_coords(variation=list(VARIATIONS), rule=list(RULES))

    def _student(self, variation: Variation) -> xr.Dataset:
        """Theory under both rules, simulation under DFA, and where DFA leads in the end."""
        start = self._start(variation)
        feedback = self._feedback(variation, start)
        times = log_times(self.end_time, self.measurements, self.input_dim)
        setting: dict[str, Any] = {
            "feedback": feedback,
            "lr": self.lr,
            "activation": variation.activation,
            "noise_std": self.noise_std if variation.noisy else 0.0,
        }
        # Only DFA is followed to the late time.
        until = {"dfa": np.append(times, self.late_time), "backprop": times}
        theory = [shallow.integrate(start, times=until[rule], rule=shallow_rule(rule), **setting) for rule in RULES]
        # One thread: other jobs use the other cores.
        seeds = [derived_seed(self.first_seed, "simulation", self.draw, i) for i in range(self.seeds)]
        simulation = shallow.simulate(start, times=times, input_dim=self.input_dim, seeds=seeds, threads=1, **setting)
        late = theory[0].final
        minimum, _ = shallow.nearest_minimum(late, variation.activation)
        curves: dict[str, Any] = {}
        for name in QUANTITIES:
            curves[f"{name}_theory"] = (("rule", "time"), [getattr(each, name)[: len(times)] for each in theory])
            curves[f"{name}_simulation"] = (("seed", "time"), getattr(simulation, name))
        taken = minimum.signs * (minimum.permutation + 1)
        return xr.Dataset(
            curves
            | {
                "feedback": ("unit", _padded(feedback)),
                "late_readout": ("unit", _padded(late.v), {"long_name": "v under DFA at the late time, theory"}),
                "late_length": ("unit", _padded(np.diag(late.Q)), {"long_name": "|w_k|² / N at the late time"}),
                "late_error": theory[0].generalisation_error[-1],
                "late_overlap": theory[0].overlap[-1],
                "taken": ("unit", _padded(taken), {"long_name": "nearest teacher unit, 1 to M, with its sign"}),
            },
            coords={"time": ("time", times, {"units": "steps / input dimension"})},
        )

    def _start(self, variation: Variation) -> shallow.OrderParameters:
        N, K = self.input_dim, variation.units
        rng = numpy_generator(self.first_seed, "start", K, self.draw)
        teacher, w, v = rng.standard_normal((K, N)), rng.standard_normal((K, N)), rng.standard_normal(K)
        A = shallow.draw_readout(variation.readout, K, rng)
        if variation.start == "informed":
            w, v = teacher + self.spread * w, A + self.spread * v
        else:
            w *= 0.0 if variation.start == "zero" else self.weight_scale
            v *= {"zero": 0.0, "small": self.weight_scale, "large readout": 1.0}[variation.start]
        return shallow.OrderParameters.from_weights(w=w, w_teacher=teacher, v=v, A=A)

    def _feedback(self, variation: Variation, start: shallow.OrderParameters) -> NDArray[np.float64]:
        rng = numpy_generator(self.first_seed, "feedback", variation.units, self.draw)
        if variation.feedback != "turned":
            return shallow.draw_feedback(variation.feedback, start, rng)
        feedback = shallow.draw_feedback("positive", start, rng)
        feedback[0] *= -1
        return feedback


def _padded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one value for each unit, NaN where a student has no such unit, [MOST_UNITS]."""
    return np.pad(values, (0, MOST_UNITS - len(values)), constant_values=np.nan)
