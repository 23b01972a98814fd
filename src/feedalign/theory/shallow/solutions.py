r"""The global minima of a student with as many units as its teacher, and which of them DFA picks.

Hidden units can be exchanged, and each activation adds a symmetry of its own, so ε_g = 0 has many solutions. With π a
permutation of the K = M units,

.. math::
    \text{erf:}\quad w_k = s_k \tilde w_{π(k)},\; v_k = s_k A_{π(k)},\; s_k = ±1; \qquad
    \text{relu:}\quad w_k = γ_k \tilde w_{π(k)},\; v_k = A_{π(k)} / γ_k,\; γ_k > 0.

An odd activation lets a unit change sign, which leaves 2^K K! points; relu(z) = γ relu(z/γ) only rescales it, which
leaves K! continuous families and fixes the sign of every v_k. These are all minima where no A_m is zero and the teacher
units are linearly independent. A linear student has no such list: all that counts is Σ_k v_k w_k.

Source: Refinetti et al. (2021), section 2; the symmetries are those of Saad & Solla (1995).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from feedalign.checks import Array, finite_array, shown, whole_number
from feedalign.errors import ArgumentError
from feedalign.theory.shallow.order_parameters import OrderParameters, check_state

# As many as fit into memory with ease: K = 7 for erf (645,120 minima), K = 9 for relu (362,880).
MOST_MINIMA = 10**6
# Exact binomials of more signs than these take minutes.
MOST_SIGNS = 10**5


@dataclass(frozen=True, eq=False)
class Minimum:
    """A global minimum [K], or n of them stacked [n, K].

    Attributes:
        permutation: π(k), the teacher unit that student unit k has become.
        signs: s_k; all +1 for relu.
        v: the student's second layer, s_k A_π(k); for relu the member of the family with γ = 1.
    """

    permutation: NDArray[np.intp]
    signs: Array
    v: Array


def global_minima(A: ArrayLike, activation: str = "erf") -> Minimum:
    """Return every global minimum of a student with K = M units, n = 2^K K! of them for erf and K! for relu.

    Args:
        A: second layer of the teacher, [K].
        activation: "erf" or "relu".

    Returns:
        The minima, stacked [n, K]; the first is the teacher itself.

    Raises:
        ArgumentError: A is no vector of finite numbers, the activation has no isolated minima, or there are more than
            a million of them.
    Source: Refinetti et al. (2021), section 2.
    """
    A = finite_array("A", A, ("K",))
    K, per_unit = len(A), _signs_per_unit(activation)
    count = per_unit**K * math.factorial(K)
    if count > MOST_MINIMA:
        raise ArgumentError(
            f"a student of K = {K} units has {count:,} minima, more than the {MOST_MINIMA:,} that are listed; "
            "nearest_minimum and selected_solution need no list"
        )
    orders = np.array(list(itertools.permutations(range(K))), dtype=np.intp)
    flips = np.array(list(itertools.product((1.0, -1.0)[:per_unit], repeat=K)))
    permutation, signs = np.repeat(orders, len(flips), axis=0), np.tile(flips, (len(orders), 1))
    return Minimum(permutation, signs, signs * A[permutation])


def selected_solution(A: ArrayLike, F: ArrayLike) -> Array:
    """Return v* = argmax v·F over the signed permutations of A: the minimum that the feedback points to most.

    For K = 2 it is the minimum that DFA takes an erf student to, and for more units it has the right signs; but the
    order of the units with smaller |F_k| is often another. `predicted_minimum` predicts where DFA ends; this function
    is the closed form to compare with.

    The largest |A_m| goes where |F_k| is largest, with the sign of F_k. Where several v maximise v·F, one of them is
    returned: of equal |F_k| the first gets the larger |A_m|, and a zero F_k gets the sign +.

    Args:
        A: second layer of the teacher, [K].
        F: feedback vector, [K].

    Returns:
        v*, [K].

    Raises:
        ArgumentError: A or F is no vector of finite numbers, or their lengths differ.
    Source: Refinetti et al. (2021), section 2, where DFA is said to choose it.
    """
    A, F = check_equal_sizes(A, F)
    v = np.empty_like(A)
    v[np.argsort(-np.abs(F), kind="stable")] = np.sort(np.abs(A))[::-1]
    return np.where(F < 0, -v, v)


def check_equal_sizes(A: ArrayLike, F: ArrayLike) -> tuple[Array, Array]:
    """Return A and F as vectors [K] of finite numbers; ArgumentError unless they have the same length."""
    A = finite_array("A", A, ("M",))
    F = finite_array("F", F, ("K",))
    if len(A) != len(F):
        raise ArgumentError(
            f"A has {len(A)} and F has {len(F)} entries; the minima are signed permutations only where the student "
            "has as many units as the teacher"
        )
    return A, F


def can_recover(A: ArrayLike, F: ArrayLike) -> bool:
    r"""Return whether a relu student with feedback F can learn a teacher with readout A under DFA.

    The answer is yes where, for each sign, F has at least as many entries as A. A zero F_k counts for neither sign,
    since its unit never learns. A zero A_m asks for nothing.

    The condition is necessary: the page on shallow networks in the documentation has the proof. That the condition is
    also sufficient is not proved: in the experiment relu-recovery condition and outcome disagree in at most one run in
    a thousand.

    Args:
        A: second layer of the teacher, [M].
        F: feedback vector, [K].

    Raises:
        ArgumentError: A or F is no vector of finite numbers.
    Source: the condition is that of Refinetti et al. (2021), section 2, there for positive A; the proof is this
        project's, after the balance of layers under gradient descent (Du, Hu & Lee, 2018, arXiv:1806.00900).
    """
    A = finite_array("A", A, ("M",))
    F = finite_array("F", F, ("K",))
    return bool((F > 0).sum() >= (A > 0).sum() and (F < 0).sum() >= (A < 0).sum())


def recovery_probability(K: int, M: int) -> float:
    r"""Return the chance that DFA lets a relu student of K units learn M units of positive readout.

    .. math:: P = 2^{-K} \sum_{k=0}^{K-M} \binom{K}{k},

    the chance that at least M of K random signs are positive; zero for K < M. It holds for any feedback with
    independent entries of symmetric law. See `can_recover` for one feedback vector.

    Raises:
        ArgumentError: K or M is not a whole number of at least one, or K is above 100,000.
    Source: Refinetti et al. (2021), section 2.
    """
    K, M = whole_number("K", K, 1, MOST_SIGNS), whole_number("M", M, 1)
    # Whole numbers up to the one division: exact for any K.
    ways, binomial = 0, 1
    for k in range(K - M + 1):
        ways += binomial
        binomial = binomial * (K - k) // (k + 1)
    return ways / 2**K


def distances_to_minima(state: OrderParameters, activation: str = "erf") -> Array:
    r"""Return how far the weights of a state are from each minimum, from its order parameters alone.

    For erf it is the Euclidean distance with first layers measured per input dimension:

    .. math:: d^2 = \sum_k |w_k - s_k \tilde w_{π(k)}|^2 / N + (v_k - s_k A_{π(k)})^2.

    For relu a unit is the product |v_k| w_k together with the sign of v_k, which is what the rescaling leaves alone:

    .. math:: d^2 = \sum_k \big|\, |v_k| w_k - |A_{π(k)}| \tilde w_{π(k)} \big|^2 / N

    where the signs of v_k and A_π(k) agree. Where they do not, the way leads through the origin and the two lengths
    add. Distances below about 1e-8 of the weights' length cannot be told from 0, by rounding in Q, R and T.

    Args:
        state: with K = M, for example `Trajectory.final`.
        activation: "erf" or "relu".

    Returns:
        Distances [n], in the order of `global_minima`.

    Raises:
        ArgumentError: K ≠ M, the activation has no isolated minima, or there are more than a million of them.
    """
    squares, minima = _squared_distances(state, activation), global_minima(state.A, activation)
    units, flipped = np.arange(state.students), (minima.signs < 0).astype(np.intp)
    return np.sqrt(squares[flipped, units, minima.permutation].sum(axis=1))


def nearest_minimum(state: OrderParameters, activation: str = "erf") -> tuple[Minimum, float]:
    """Return the minimum nearest to a state, [K], and its distance as `distances_to_minima` measures it.

    The minimum is found as an assignment of students to teachers. No list of minima is made, so K may be large.

    Raises:
        ArgumentError: K ≠ M, or the activation has no isolated minima.
    """
    squares = _squared_distances(state, activation)
    units, permutation = linear_sum_assignment(squares.min(axis=0))  # units: 0..K-1
    signs = 1.0 - 2.0 * squares.argmin(axis=0)[units, permutation]
    distance = math.sqrt(squares.min(axis=0)[units, permutation].sum())
    return Minimum(permutation, signs, signs * state.A[permutation]), distance


def _squared_distances(state: OrderParameters, activation: str) -> Array:
    """Return the squared distance of student k from teacher m with sign s, [signs, K, M]; a minimum sums K of them."""
    check_state("state", state)
    signs = np.array([1.0, -1.0])[: _signs_per_unit(activation), None, None]
    if state.students != state.teachers:
        raise ArgumentError(
            f"the state has K = {state.students} students and M = {state.teachers} teachers; its minima are signed "
            "permutations of the teacher only for K = M"
        )
    v, A = state.v[:, None], state.A[None, :]
    QQ, TT = np.diag(state.Q)[:, None], np.diag(state.T)[None, :]
    if activation == "erf":
        squares = QQ - 2 * signs * state.R + TT + (v - signs * A) ** 2
    else:
        # Per unit: |p|² + |t|² − 2 p·t of p = |v| w and t = |A| w̃, and (|p| + |t|)² through the origin.
        meeting = np.where(v * A > 0, -v * A * state.R, np.abs(v * A) * np.sqrt(QQ.clip(0) * TT.clip(0)))
        squares = (v**2 * QQ + A**2 * TT + 2 * meeting)[None]
    return np.maximum(squares, 0.0)  # overlaps of equal vectors differ by rounding


def _signs_per_unit(activation: str) -> int:
    if not isinstance(activation, str) or activation not in ("erf", "relu"):
        raise ArgumentError(
            f"activation={shown(activation)} has no list of minima, expected 'erf' or 'relu'; the minima of a "
            "linear student are not isolated: every w, v with the teacher's Σ v_k w_k is one"
        )
    return 2 if activation == "erf" else 1
