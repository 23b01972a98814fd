"""What integration and simulation return: the order parameters along time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from feedalign.checks import Array
from feedalign.errors import ArgumentError
from feedalign.theory.shallow.compiling import compiled
from feedalign.theory.shallow.ode import covariance
from feedalign.theory.shallow.order_parameters import OrderParameters, generalisation_error
from feedalign.theory.shallow.setting import Setting


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Order parameters at n times.

    Several simulated seeds have one more axis in front, which stands as "..." in the shapes below.

    Attributes:
        times: steps / input_dim, [n].
        Q: student-student overlaps, [..., n, K, K].
        R: student-teacher overlaps, [..., n, K, M].
        v: second layer of the student, [..., n, K].
        start: the state at time 0, with the T and A that stay fixed.
        setting: rule, feedback and learning rates of the run.
    """

    times: Array
    Q: Array
    R: Array
    v: Array
    start: OrderParameters
    setting: Setting

    @cached_property
    def generalisation_error(self) -> Array:
        """ε_g = ½⟨(noiseless y − ŷ)²⟩ at every time, with the ½, [..., n]."""
        K, M = self.start.students, self.start.teachers
        Q, R, v = self.Q.reshape(-1, K, K), self.R.reshape(-1, K, M), self.v.reshape(-1, K)
        flat = _generalisation_errors(self.setting.activation, Q, R, v, self.start.T, self.start.A)
        return np.reshape(flat, self.v.shape[:-1])

    @cached_property
    def overlap(self) -> Array:
        """cos(v, F), the alignment of the second layer with the feedback, [..., n]; NaN where v = 0.

        Raises:
            ArgumentError: the run used backprop and was given no feedback to compare with.
        """
        F = self.setting.feedback
        if np.isnan(F).any():
            raise ArgumentError("this backprop run has no feedback to compare v with; give feedback=")
        norms = np.linalg.norm(self.v, axis=-1) * np.linalg.norm(F)
        return np.divide(self.v @ F, norms, out=np.full(norms.shape, np.nan), where=norms > 0)

    @property
    def final(self) -> OrderParameters:
        """The state at the last time, from which a new run can start.

        Raises:
            ArgumentError: the trajectory holds several seeds, and so has several last states.
        """
        if self.v.ndim != 2:
            raise ArgumentError("a batch of seeds has no single final state; simulate one seed=")
        return OrderParameters(Q=self.Q[-1], R=self.R[-1], T=self.start.T, v=self.v[-1], A=self.start.A)


@compiled
def _generalisation_errors(activation: int, Q: Array, R: Array, v: Array, T: Array, A: Array) -> Array:
    errors = np.empty(len(v))
    for i in range(len(v)):
        errors[i] = generalisation_error(activation, covariance(Q[i], R[i], T), v[i], A)
    return errors
