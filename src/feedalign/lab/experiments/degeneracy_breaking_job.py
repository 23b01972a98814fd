"""The job of the experiment degeneracy-breaking: where both rules lead from one start, and what was predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from feedalign.errors import ArgumentError
from feedalign.lab.experiments.common.grid import in_turn
from feedalign.lab.runs import Desk, Job
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.streams import numpy_generator
from feedalign.theory import shallow

RULES = ("dfa", "backprop")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all draws have in common.

    Attributes:
        teachers: second layers A, each with K = M entries of different sizes.
        input_dim: N, the number of inputs of the initial random first layers.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        solved: ε_g at which a run has arrived at a solution, and stops.
        end_time: when a run that has not arrived is stopped, in steps / N.
        first_seed: seed from which every draw gets its own.
    """

    teachers: tuple[tuple[float, ...], ...] = ((0.8, 1.5), (0.6, 1.1, 1.8), (0.5, 0.9, 1.4, 2.0))
    input_dim: int = 500
    lr: float = 0.1
    weight_scale: float = 0.01
    solved: float = 1e-5
    end_time: float = 1e5
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Students(Setting, Job):
    """One draw of first layers, start and feedback for every second layer A, under both rules.

    Attributes:
        draw: number of the draw.
    """

    kind = "degeneracy-breaking-students"
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Integrate a student of every teacher; the entries of units that a student does not have are NaN."""
        most = max(map(len, self.teachers))
        students = [self._student(A).pad(unit=(0, most - len(A))) for A in in_turn(desk, self.teachers)]
        return xr.concat(students, "teacher").assign_coords(rule=list(RULES))

    def _student(self, A: tuple[float, ...]) -> xr.Dataset:
        """Both rules from one start, with one feedback vector."""
        rng = numpy_generator(self.first_seed, "start", len(A), self.draw)
        scale = self.weight_scale
        start = shallow.draw_start(A, students=len(A), input_dim=self.input_dim, rng=rng, w_std=scale, v_std=scale)
        F = shallow.draw_feedback("random", start, numpy_generator(self.first_seed, "feedback", len(A), self.draw))
        runs = [
            shallow.integrate(start, feedback=F, lr=self.lr, times=[self.end_time], rule=shallow_rule(rule),
                              stop_at_error=self.solved)
            for rule in RULES
        ]  # fmt: skip
        nearest = [shallow.nearest_minimum(run.final) for run in runs]
        return xr.Dataset(
            {
                "feedback": ("unit", F),
                "predicted_readout": ("unit", _prediction(start, F)),
                "largest_overlap_readout": ("unit", shallow.selected_solution(start.A, F)),
                "final_readout": (("rule", "unit"), [run.v[-1] for run in runs]),
                "nearest_readout": (("rule", "unit"), [minimum.v for minimum, _ in nearest]),
                "distance_to_nearest": ("rule", [distance for _, distance in nearest]),
                "generalisation_error": ("rule", [run.generalisation_error[-1] for run in runs]),
            }
        )


def _prediction(start: shallow.OrderParameters, F: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the predicted v, or NaN where an entry of F is so close to zero that there is no prediction."""
    try:
        return shallow.predicted_minimum(start.A, F, T=start.T)
    except ArgumentError:
        return np.full_like(F, np.nan)
