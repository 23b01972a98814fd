r"""Gaussian averages of the activation, from which every right-hand side of the shallow theory is built.

Index conventions: ``C`` is the covariance [K+M, K+M] of the local fields u = (λ_1..λ_K, ν_1..ν_M); a, b, m run over all
of u; k, l over the students, whose activation is differentiated.

.. math::
    I_2(a,b) = E[g(u_a) g(u_b)], \quad I_3(k;m,a) = E[g'(u_k) u_m g(u_a)],

    I_4(k,l;a,b) = E[g'(u_k) g'(u_l) g(u_a) g(u_b)], \quad J_2(k,l) = E[g'(u_k) g'(u_l)].

An activation is a code that the compiled functions branch on: numba caches such functions on disk, which it cannot do
for functions that receive other compiled functions. A new activation adds one branch, its closed form, to each of the
six functions at the end of this file.

Sources: Saad & Solla (1995), Biehl & Schwarze (1995) for erf, g(x) = erf(x/√2). For ReLU I2 is the kernel of Cho & Saul
(2009), I3 follows from it by Gaussian integration by parts, and I4 is a truncated moment, see `orthants`.
"""

from __future__ import annotations

import math

import numpy as np

from feedalign.checks import Array, one_of
from feedalign.theory.shallow.compiling import compiled
from feedalign.theory.shallow.orthants import orthant_moment

ERF, LINEAR, RELU = 0, 1, 2
ACTIVATIONS = {"erf": ERF, "relu": RELU, "linear": LINEAR}

# Units whose correlation is within this of ±1 count as one, or as opposite: what is left of 1 − ρ is rounding.
_COINCIDENT = 1e-13


def activation_code(name: str) -> int:
    """Return the code of an activation's name; ArgumentError lists the known ones."""
    return ACTIVATIONS[one_of("activation", name, ACTIVATIONS)]


@compiled
def _asin(sine: float) -> float:
    # Rounding can push the argument past ±1 where two units coincide.
    return math.asin(min(1.0, max(-1.0, sine)))


@compiled
def _erf_i4(C: Array, k: int, l: int, a: int, b: int) -> float:
    kk, ll, kl = 1 + C[k, k], 1 + C[l, l], C[k, l]
    ka, kb, la, lb = C[k, a], C[k, b], C[l, a], C[l, b]
    det = kk * ll - kl**2
    cross = det * C[a, b] - la * lb * kk - ka * kb * ll + kl * (ka * lb + kb * la)
    norm_a = det * (1 + C[a, a]) - la**2 * kk - ka**2 * ll + 2 * kl * ka * la
    norm_b = det * (1 + C[b, b]) - lb**2 * kk - kb**2 * ll + 2 * kl * kb * lb
    return 4 / math.pi**2 / math.sqrt(det) * _asin(cross / math.sqrt(norm_a * norm_b))


@compiled
def _relu_root(C: Array, a: int, b: int) -> float:
    """√(C_aa C_bb − C_ab²), zero where units coincide or have no variance."""
    return math.sqrt(max(0.0, C[a, a] * C[b, b] - C[a, b] ** 2))


@compiled
def _relu_both_active(C: Array, a: int, b: int) -> float:
    """Probability that u_a and u_b are positive; a unit without variance never is."""
    if C[a, a] <= 0 or C[b, b] <= 0:
        return 0.0
    return 1 / 4 + math.atan2(C[a, b], _relu_root(C, a, b)) / (2 * math.pi)


@compiled
def _relu_i4(C: Array, k: int, l: int, a: int, b: int) -> float:
    distinct = np.empty(4, np.int64)  # units of the moment, coinciding ones taken together
    gap = np.zeros((4, 4))  # one minus their correlations
    place = np.empty(4, np.int64)
    d = 0
    for i, unit in enumerate((k, l, a, b)):
        if C[unit, unit] <= 0:
            return 0.0
        place[i] = d
        for j in range(d):
            other = distinct[j]
            if other == unit:
                place[i] = j
                break
            gap[d, j] = 1 - C[unit, other] / math.sqrt(C[unit, unit] * C[other, other])
            gap[j, d] = gap[d, j]
            if gap[d, j] > 2 - _COINCIDENT:  # opposite units are never active together
                return 0.0
            if gap[d, j] < _COINCIDENT:
                place[i] = j
                break
        if place[i] == d:
            distinct[d] = unit
            d += 1
    return math.sqrt(C[a, a] * C[b, b]) * orthant_moment(gap, d, place[2], place[3])


@compiled
def activate(activation: int, field: float) -> float:
    """g(u), the activation itself."""
    if activation == ERF:
        return math.erf(field / math.sqrt(2))
    if activation == RELU:
        return max(field, 0.0)
    return field


@compiled
def activation_slope(activation: int, field: float) -> float:
    """g'(u), its derivative."""
    if activation == ERF:
        return math.sqrt(2 / math.pi) * math.exp(-(field**2) / 2)
    if activation == RELU:
        return 1.0 if field > 0.0 else 0.0
    return 1.0


@compiled
def residual(g: Array, v: Array, A: Array, students: int, teachers: int) -> float:
    """Return the noiseless Δ = y − ŷ; g are the activated fields, students' and teachers' at these offsets."""
    delta = 0.0
    for m in range(A.size):
        delta += A[m] * g[teachers + m]
    for k in range(v.size):
        delta -= v[k] * g[students + k]
    return delta


@compiled
def i2(activation: int, C: Array, a: int, b: int) -> float:
    """E[g(u_a) g(u_b)]."""
    if activation == ERF:
        return 2 / math.pi * _asin(C[a, b] / math.sqrt((1 + C[a, a]) * (1 + C[b, b])))
    if activation == RELU:
        return _relu_root(C, a, b) / (2 * math.pi) + C[a, b] * _relu_both_active(C, a, b)
    return C[a, b]


@compiled
def i3(activation: int, C: Array, k: int, m: int, a: int) -> float:
    """E[g'(u_k) u_m g(u_a)]."""
    if activation == ERF:
        root = math.sqrt((1 + C[k, k]) * (1 + C[a, a]) - C[k, a] ** 2)
        return 2 / math.pi / root * (C[m, a] - C[k, m] * C[k, a] / (1 + C[k, k]))
    if activation == RELU:
        if C[k, k] <= 0:
            return 0.0
        return C[k, m] * _relu_root(C, k, a) / (2 * math.pi * C[k, k]) + C[m, a] * _relu_both_active(C, k, a)
    return C[m, a]


@compiled
def i4(activation: int, C: Array, k: int, l: int, a: int, b: int) -> float:
    """E[g'(u_k) g'(u_l) g(u_a) g(u_b)]."""
    if activation == ERF:
        return _erf_i4(C, k, l, a, b)
    if activation == RELU:
        return _relu_i4(C, k, l, a, b)
    return C[a, b]


@compiled
def j2(activation: int, C: Array, k: int, l: int) -> float:
    """E[g'(u_k) g'(u_l)]."""
    if activation == ERF:
        return 2 / math.pi / math.sqrt((1 + C[k, k]) * (1 + C[l, l]) - C[k, l] ** 2)
    if activation == RELU:
        return _relu_both_active(C, k, l)
    return 1.0
