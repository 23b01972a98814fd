r"""Which of the 2^K K! minima an erf student takes under DFA: the one that the flow from zero weights leads to.

DFA forgets a small start. Where w_k and v are small, y − ŷ ≈ y, and the equations of `ode` are, with η a common factor,

.. math::
    \dot w_k = \tfrac{\sqrt 2}{π} F_k \sum_m A_m \tilde w_m, \qquad \dot v_k = \tfrac{\sqrt 2}{π} \sum_m A_m R_{km},

so w_k grows as F_k Σ_m A_m w̃_m, the same direction for all units, and v grows as F. What is left of a start of size ε
stays of size ε. Every small start therefore comes to the plateau at the same point. No initial direction is left at
this point, and the units differ by F_k alone. From there the equations are deterministic, and so is the minimum they
lead to. As η → 0 the student stays in the span of the teacher, Q = R T⁻¹ Rᵀ.

Limits. The prediction is for small weights, η → 0, and as many student as teacher units. Close to the border between
two minima the start, η, or overlaps T that were not given can decide. The page on shallow networks in the documentation
says why the minimum is not always the one with the largest v·F.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, finite_array, positive_number
from feedalign.errors import ArgumentError
from feedalign.theory.shallow.order_parameters import OrderParameters
from feedalign.theory.shallow.solutions import check_equal_sizes, nearest_minimum
from feedalign.theory.shallow.solving import integrate

# At this η the η² terms, which the flow does not have, are a millionth of the others.
_SMALL_LR = 1e-6
# Learning takes a time of 1 / F_k²; at this η t even a unit with |F_k| = 1e-3 has arrived.
_LONGEST_FLOW = 1e6
# Squares of larger numbers are none that can be followed.
_LARGEST = 1e100
# ε_g at which no unit can change its teacher any more, as a share of the error ½ A_m² E[g²] = A_m² / 6 that the
# smallest teacher unit leaves while no student unit has learned it.
_DECIDED = 1e-2


def predicted_minimum(A: ArrayLike, F: ArrayLike, *, T: ArrayLike | None = None, readout_rate: float = 1.0) -> Array:
    r"""Return v of the minimum that DFA takes an erf student with K = M units to, from any small start.

    It integrates the noise-free equations (η → 0) from zero weights until the units have chosen, in less than a second:

    .. math::
        \dot R_{km} = F_k \sum_a s_a I_3(k; m, a), \qquad \dot v_k = \frac{η_v}{η} \sum_a s_a I_2(k, a), \qquad
        s = (-v, A), \quad Q = R\,T^{-1} R^\top, \quad R(0) = 0,\; v(0) = 0.

    The sign of v_k is that of F_k. The order often has the largest |A_m| where |F_k| is largest, but not always: see
    `selected_solution` for the order with the largest v·F. Besides the directions of F and A, only the product
    |F| |A| η / η_v matters. Measured against the full equations from random starts: experiment degeneracy-breaking.

    Args:
        A: second layer of the teacher, [K], without zeros.
        F: feedback vector, [K], without zeros.
        T: teacher-teacher overlaps, [K, K]; the identity (independent teacher units, N → ∞) unless given.
        readout_rate: η_v / η.

    Returns:
        v, the second layer of the student after learning, [K]. Where two |F_k| are equal, or two |A_m|, rounding
        chooses between the orders that exchange them.

    Raises:
        ArgumentError: A or F is no vector of finite numbers without zeros, their lengths differ, T is no covariance, or
            the flow stays on a plateau (units that are equal, or an |F_k| that is close to zero).
    Source: this project; the equations are those of `ode.drift`.
    """
    A, F = check_equal_sizes(A, F)
    for name, vector in {"A": A, "F": F}.items():
        if not vector.all():
            raise ArgumentError(
                f"{name} must have no zero entry, got {vector}; leave out units that the "
                "feedback does not reach, or that the teacher does not use"
            )
    T = np.eye(len(A)) if T is None else finite_array("T", T, (len(A), len(A)))
    readout_rate = positive_number("readout_rate", readout_rate)
    if (largest := max(np.abs(A).max(), np.abs(F).max(), np.abs(T).max())) > _LARGEST:
        raise ArgumentError(f"A, F and T must hold numbers of at most {_LARGEST:g}, got {largest:.3g}")
    # Signs and order of the units are symmetries of the equations. The flow is followed in one order, with all signs
    # positive, so that rounding does not depend on them either.
    students, teachers = np.argsort(-np.abs(F), kind="stable"), np.argsort(-np.abs(A), kind="stable")
    turned = np.sign(A)[:, None] * T * np.sign(A)
    v = np.empty_like(A)
    v[students] = _end_of_flow(
        np.abs(A)[teachers], np.abs(F)[students], turned[np.ix_(teachers, teachers)], readout_rate
    )
    return np.where(F < 0, -v, v)


def _end_of_flow(A: Array, F: Array, T: Array, readout_rate: float) -> Array:
    """Return v of the minimum at the end of the flow from zero weights; A and F are positive."""
    K = len(A)
    zero = OrderParameters(Q=np.zeros((K, K)), R=np.zeros((K, K)), T=T, v=np.zeros(K), A=A)
    decided = _DECIDED * A.min() ** 2 / 6
    flow = integrate(
        zero, feedback=F, lr=_SMALL_LR, lr_readout=readout_rate * _SMALL_LR, times=[_LONGEST_FLOW / _SMALL_LR],
        stop_at_error=decided, rtol=1e-7, atol=1e-9,
    )  # fmt: skip
    error = flow.generalisation_error[-1]
    if error > 1.01 * decided:  # the solver finds the crossing up to rounding
        raise ArgumentError(
            f"the flow for |F| = {F} and |A| = {A} is still on a plateau (ε_g = {error:.3g}) at "
            f"η t = {_LONGEST_FLOW:g}; there is no prediction where units are equal or an entry of F is close to zero"
        )
    return nearest_minimum(flow.final)[0].v
