"""Random teachers, starts and feedback vectors; every draw comes from the generator it is given.

Source: Refinetti et al. (2021), section 2, whose choices of feedback bear these names.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import null_space
from scipy.stats import wishart

from feedalign.checks import Array, finite_array, number_at_least, one_of, random_generator, whole_number
from feedalign.errors import ArgumentError
from feedalign.theory.shallow.order_parameters import OrderParameters, check_state

ReadoutKind = Literal["random", "uniform", "alternating"]
FeedbackKind = Literal["random", "positive", "initial", "orthogonal"]

# The overlaps of so many units fill 800 MB; the theory's cost grows with a higher power still.
MOST_UNITS = 10_000


def draw_readout(kind: ReadoutKind, units: int, rng: np.random.Generator) -> Array:
    """Return a second layer for a teacher.

    Args:
        kind: "random" is N(0, 1), "uniform" is all one, "alternating" is +1, −1, +1, ...; only the first draws.
        units: M, hidden units of the teacher.
        rng: where random numbers come from.

    Returns:
        A, [M].

    Raises:
        ArgumentError: the kind is unknown, or units is not a whole number of at least one.
    """
    one_of("kind", kind, get_args(ReadoutKind))
    units = whole_number("units", units, 1, MOST_UNITS)
    random_generator("rng", rng)
    if kind == "random":
        return rng.standard_normal(units)
    return np.ones(units) if kind == "uniform" else np.resize([1.0, -1.0], units)


def draw_start(
    A: ArrayLike, *, students: int, input_dim: int, rng: np.random.Generator, w_std: float, v_std: float
) -> OrderParameters:
    """Return the order parameters of networks of finite input dimension with independent Gaussian weights.

    The overlaps of Gaussian weights follow a Wishart law with N degrees of freedom, and are drawn from this law. The
    draw is exact at any N, and no weight is ever stored. w_std and v_std only set the scale: from one state of the
    generator, teacher and directions are the same for any w_std and v_std. Zero for both gives the zero start.

    Args:
        A: second layer of the teacher, [M]; its first layer is N(0, 1).
        students: K.
        input_dim: N, at least K + M.
        rng: where random numbers come from.
        w_std: standard deviation of the student's first layer.
        v_std: standard deviation of the student's second layer.

    Raises:
        ArgumentError: A is no vector of finite numbers, or a size or standard deviation is out of range.
    """
    readout = finite_array("A", A, ("M",))
    students = whole_number("students", students, 1, MOST_UNITS)
    units = students + len(readout)
    input_dim = whole_number("input_dim", input_dim, units, advice="it must be at least K + M")
    random_generator("rng", rng)
    w_std, v_std = number_at_least("w_std", w_std, 0), number_at_least("v_std", v_std, 0)
    scale = np.concatenate((np.full(students, w_std), np.ones(len(readout))))
    with np.errstate(over="ignore"):  # OrderParameters refuses infinite overlaps
        scales = np.outer(scale, scale)
    C = scales * wishart.rvs(df=input_dim, scale=np.eye(units), random_state=rng) / input_dim
    v = v_std * rng.standard_normal(students)
    return OrderParameters(
        Q=C[:students, :students], R=C[:students, students:], T=C[students:, students:], v=v, A=readout
    )


def draw_feedback(kind: FeedbackKind, start: OrderParameters, rng: np.random.Generator) -> Array:
    """Return a feedback vector for the student of `start`.

    Args:
        kind: "random" is N(0, 1); "positive" is |N(0, 1)|; "initial" is the start's own v, and draws nothing;
            "orthogonal" has a random direction among those orthogonal to the teacher's A, and the length of a random
            one (the original study used one such vector for a uniform A; this is any, for any A).
        start: the state that learning starts from, which is not changed.
        rng: where random numbers come from.

    Returns:
        F, [K].

    Raises:
        ArgumentError: the kind is unknown, "initial" meets v = 0, or "orthogonal" meets K ≠ M, K = 1 or A = 0.
    """
    one_of("kind", kind, get_args(FeedbackKind))
    check_state("start", start)
    random_generator("rng", rng)
    if kind == "random":
        return rng.standard_normal(start.students)
    if kind == "positive":
        return np.abs(rng.standard_normal(start.students))
    if kind == "initial":
        if not start.v.any():
            raise ArgumentError("kind='initial' copies the start's v, but that is zero: no first layer would learn")
        return start.v.copy()
    K, M = start.students, start.teachers
    if K != M or K < 2 or not start.A.any():
        raise ArgumentError(
            f"kind='orthogonal' needs a feedback vector that is orthogonal to A, so K = M ≥ 2 and A ≠ 0; got K = {K}, "
            f"M = {M}, A = {start.A}"
        )
    direction = null_space(start.A[None]) @ rng.standard_normal(K - 1)
    return direction / np.linalg.norm(direction) * math.sqrt(rng.chisquare(K))
