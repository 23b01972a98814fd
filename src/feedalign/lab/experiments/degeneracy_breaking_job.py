"""The job of the experiment degeneracy-breaking: where both rules lead from one start, and what was predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from feedalign.errors import ArgumentError
from feedalign.lab.runs import Desk, Job
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.streams import numpy_generator
from feedalign.theory import shallow

RULES = ("dfa", "backprop")


@dataclass(frozen=True)
class Students(Job):
    """One draw of first layers, start and feedback for every second layer A, under both rules.

    Attributes:
        teachers: as in `degeneracy_breaking.Config`, and so are `input_dim`, `lr`, `weight_scale`, `solved`, `end_time`
            and `first_seed`.
        draw: number of the draw.
    """

    kind = "degeneracy-breaking-students"
    teachers: tuple[tuple[float, ...], ...]
    input_dim: int
    lr: float
    weight_scale: float
    solved: float
    end_time: float
    first_seed: int
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Integrate a student of every teacher; the entries of units that a student does not have are NaN."""
        most = max(map(len, self.teachers))
        students = []
        for i, A in enumerate(self.teachers):
            students.append(self._student(A).pad(unit=(0, most - len(A))))
            desk.progress(i + 1, len(self.teachers))
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
