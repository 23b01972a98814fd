"""The state of a student that learns a teacher, in the few numbers its dynamics closes on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, finite_array, instance_of
from feedalign.errors import ArgumentError
from feedalign.theory.shallow.compiling import compiled
from feedalign.theory.shallow.integrals import activation_code, i2

# Eigenvalues of overlaps are negative by rounding where they come from weights, by the solver's error (of the size of
# its tolerances, where units coincide) where they come from integration; beyond, it is a user's mistake.
_PSD_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class OrderParameters:
    r"""Overlaps of K student and M teacher units, and both second layers; checked, and read-only once made.

    Attributes:
        Q: student-student overlaps w_k·w_l/N, [K, K].
        R: student-teacher overlaps w_k·w̃_m/N, [K, M].
        T: teacher-teacher overlaps w̃_m·w̃_n/N, [M, M].
        v: second layer of the student, [K].
        A: second layer of the teacher, [M].

    Raises:
        ArgumentError: shapes disagree, a value is not finite, or no weights have these overlaps (Q or T not
            symmetric, or the covariance [[Q, R], [Rᵀ, T]] not positive semi-definite).
    Source: Saad & Solla (1995), Goldt et al. (2019).
    """

    Q: Array
    R: Array
    T: Array
    v: Array
    A: Array

    def __post_init__(self) -> None:
        for field in fields(self):
            value = finite_array(field.name, getattr(self, field.name)).copy()
            value.setflags(write=False)
            object.__setattr__(self, field.name, value)
        if self.v.ndim != 1 or self.A.ndim != 1 or not self.v.size or not self.A.size:
            raise ArgumentError(f"v and A must be vectors [K] and [M], got shapes {self.v.shape} and {self.A.shape}")
        K, M = self.students, self.teachers
        for name, shape in {"Q": (K, K), "R": (K, M), "T": (M, M)}.items():
            if getattr(self, name).shape != shape:
                raise ArgumentError(
                    f"{name} has shape {getattr(self, name).shape}, expected {shape}: v has {K} and A has {M} entries"
                )
        for name in "QT":
            if not np.allclose(getattr(self, name), getattr(self, name).T, rtol=0, atol=_PSD_TOLERANCE):
                raise ArgumentError(f"{name} must be symmetric; it holds the overlaps of units with one another")
        covariance = self.covariance
        smallest = np.linalg.eigvalsh(covariance)[0]
        if smallest < -_PSD_TOLERANCE * max(1.0, np.trace(covariance)):
            raise ArgumentError(
                f"[[Q, R], [Rᵀ, T]] has the eigenvalue {smallest:.3g}, but overlaps of real weights are positive "
                "semi-definite; compute them with OrderParameters.from_weights"
            )

    @classmethod
    def from_weights(cls, *, w: ArrayLike, w_teacher: ArrayLike, v: ArrayLike, A: ArrayLike) -> OrderParameters:
        """Return the order parameters of given first layers: student w [K, N], teacher w_teacher [M, N]."""
        student = finite_array("w", w, ("K", "N"))
        input_dim = student.shape[1]
        teacher = finite_array("w_teacher", w_teacher, ("M", input_dim))
        with np.errstate(over="ignore"):  # an infinite overlap is refused with the others
            Q, R, T = student @ student.T, student @ teacher.T, teacher @ teacher.T
        v, A = finite_array("v", v, (len(student),)), finite_array("A", A, (len(teacher),))
        return cls(Q=Q / input_dim, R=R / input_dim, T=T / input_dim, v=v, A=A)

    @property
    def students(self) -> int:
        """K, the number of hidden units of the student."""
        return len(self.v)

    @property
    def teachers(self) -> int:
        """M, the number of hidden units of the teacher."""
        return len(self.A)

    @property
    def covariance(self) -> Array:
        """Covariance of the local fields (λ, ν), [K+M, K+M]."""
        return np.block([[self.Q, self.R], [self.R.T, self.T]])

    def generalisation_error(self, activation: str = "erf") -> float:
        """Return ε_g = ½⟨(noiseless y − ŷ)²⟩, with the ½."""
        return float(generalisation_error(activation_code(activation), self.covariance, self.v, self.A))


def check_state(name: str, state: OrderParameters) -> None:
    """Raise an ArgumentError unless a state is an `OrderParameters`."""
    instance_of(name, state, OrderParameters, "make one with OrderParameters(...) or draw_start(...)")


@compiled
def generalisation_error(activation: int, C: Array, v: Array, A: Array) -> float:
    """Return ε_g = ½ Σ_ab s_a s_b I2(a, b) with s = (−v, A)."""
    s = np.concatenate((-v, A))
    total = 0.0
    for a in range(s.size):
        for b in range(s.size):
            total += s[a] * s[b] * i2(activation, C, a, b)
    return total / 2
