r"""Gaussian averages of the activation, from which every right-hand side of the shallow theory is built.

Index conventions: ``C`` is the covariance [K+M, K+M] of the local fields u = (λ_1..λ_K, ν_1..ν_M); a, b, m run over all
of u; k, l over the students, whose activation is differentiated.

.. math::
    I_2(a,b) = E[g(u_a) g(u_b)], \quad I_3(k;m,a) = E[g'(u_k) u_m g(u_a)],

    I_4(k,l;a,b) = E[g'(u_k) g'(u_l) g(u_a) g(u_b)], \quad J_2(k,l) = E[g'(u_k) g'(u_l)].

An activation is a code that the compiled functions branch on: numba caches such functions on disk, which it cannot do
for functions that receive other compiled functions. A new activation adds its closed forms, and one branch to each of
the six functions at the end of this file.

Source: Saad & Solla (1995), Biehl & Schwarze (1995) for erf, g(x) = erf(x/√2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feedalign.errors import ArgumentError

Array = NDArray[np.float64]
Compiled = TypeVar("Compiled", bound=Callable[..., Any])

ERF, LINEAR = 0, 1
ACTIVATIONS = {"erf": ERF, "linear": LINEAR}


def compiled(function: Compiled) -> Compiled:
    """Compile with numba, cached on disk, without the interpreter lock so that seeds can run in threads."""
    # Sums may be reordered and fused, which makes a simulated step 5 % shorter; NaN and infinity keep their meaning.
    reordering = {"contract", "nsz", "arcp", "reassoc"}
    return cast(Compiled, njit(cache=True, nogil=True, error_model="numpy", fastmath=reordering)(function))


def activation_code(name: str) -> int:
    """Return the code of an activation's name; ArgumentError lists the known ones."""
    if name not in ACTIVATIONS:
        raise ArgumentError(f"activation={name!r} is unknown; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@compiled
def _asin(sine: float) -> float:
    # Rounding can push the argument past ±1 where two units coincide.
    return math.asin(min(1.0, max(-1.0, sine)))


@compiled
def _erf_i2(C: Array, a: int, b: int) -> float:
    return 2 / math.pi * _asin(C[a, b] / math.sqrt((1 + C[a, a]) * (1 + C[b, b])))


@compiled
def _erf_i3(C: Array, k: int, m: int, a: int) -> float:
    root = math.sqrt((1 + C[k, k]) * (1 + C[a, a]) - C[k, a] ** 2)
    return 2 / math.pi / root * (C[m, a] - C[k, m] * C[k, a] / (1 + C[k, k]))


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
def _erf_j2(C: Array, k: int, l: int) -> float:
    return 2 / math.pi / math.sqrt((1 + C[k, k]) * (1 + C[l, l]) - C[k, l] ** 2)


@compiled
def activate(activation: int, field: float) -> float:
    """g(u), the activation itself."""
    if activation == ERF:
        return math.erf(field / math.sqrt(2))
    return field


@compiled
def activation_slope(activation: int, field: float) -> float:
    """g'(u), its derivative."""
    if activation == ERF:
        return math.sqrt(2 / math.pi) * math.exp(-(field**2) / 2)
    return 1.0


@compiled
def i2(activation: int, C: Array, a: int, b: int) -> float:
    """E[g(u_a) g(u_b)]."""
    if activation == ERF:
        return _erf_i2(C, a, b)
    return C[a, b]


@compiled
def i3(activation: int, C: Array, k: int, m: int, a: int) -> float:
    """E[g'(u_k) u_m g(u_a)]."""
    if activation == ERF:
        return _erf_i3(C, k, m, a)
    return C[m, a]


@compiled
def i4(activation: int, C: Array, k: int, l: int, a: int, b: int) -> float:
    """E[g'(u_k) g'(u_l) g(u_a) g(u_b)]."""
    if activation == ERF:
        return _erf_i4(C, k, l, a, b)
    return C[a, b]


@compiled
def j2(activation: int, C: Array, k: int, l: int) -> float:
    """E[g'(u_k) g'(u_l)]."""
    if activation == ERF:
        return _erf_j2(C, k, l)
    return 1.0
