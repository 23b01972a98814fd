r"""Orthant probabilities and truncated moments of up to four Gaussians, exact also where some of them nearly coincide.

.. math::
    P = \Pr(z_1 > 0, …, z_d > 0), \qquad M_{pq} = E[z_p z_q \, 1\{z_1 > 0, …, z_d > 0\}]

for z of mean zero and variance one. Correlations ρ are given as gaps 1 − ρ [d, d]: where a student unit meets a teacher
unit, everything is built from such gaps, and 1 − ρ computed from ρ in the end would have lost its digits.

Sources: Plackett (1954) for P in four dimensions, Tallis (1961) for the moments.
"""

from __future__ import annotations

import math

import numpy as np

from feedalign.checks import Array
from feedalign.theory.shallow.compiling import compiled


def _double_exponential(step: float, half: int) -> tuple[Array, Array, Array]:
    """Return nodes τ in (0, 1), their distances 1 − τ, and weights (Takahasi & Mori, 1974).

    They crowd at both ends, where the integrands below have square roots, some only just beyond the end.
    """
    position = math.pi / 2 * np.sinh(step * np.arange(-half, half + 1))
    weights = step * math.pi / 4 * np.cosh(step * np.arange(-half, half + 1)) / np.cosh(position) ** 2
    return 1 / (1 + np.exp(-2 * position)), 1 / (1 + np.exp(2 * position)), weights


# 93 nodes, or every second one where the determinant of the correlations is above _FAR: exact to 1e-12 both ways.
_NODES, _REMAINDERS, _WEIGHTS = _double_exponential(0.07, 46)
_FAR = 1e-2

# Variables are kept this far out of the span of those before them: less would be lost among the rounding of C.
_LEAST_HEIGHT = 1e-8


@compiled
def _given(gap: Array, r: int, i: int, j: int) -> float:
    """Covariance of z_i and z_j given z_r = 0."""
    return gap[r, i] + gap[r, j] - gap[i, j] - gap[r, i] * gap[r, j]


@compiled
def _vectors(gap: Array) -> tuple[Array, float]:
    """Vectors [4, 4] whose inner products are the four correlations (pivoted Cholesky), and the volume they span.

    All that multiplies a bounded angle below is read off these same vectors. Where variables lie in a plane, such
    angles are settled by rounding alone; taken from one set of vectors they at least agree, and their sum is right.
    """
    vectors = np.zeros((4, 4))
    vectors[:, 0] = 1 - gap[0]
    left = np.empty(4)  # squared distance from the span of the columns filled so far; negative for pivots
    for i in range(4):
        left[i] = _given(gap, 0, i, i)
    left[0], volume = -1.0, 1.0
    for column in range(1, 4):
        pivot = int(np.argmax(left))
        height = max(math.sqrt(max(left[pivot], 0.0)), _LEAST_HEIGHT)
        left[pivot], volume = -1.0, volume * height
        vectors[pivot, column] = height
        for i in range(1, 4):
            if left[i] >= 0:
                value = _given(gap, 0, i, pivot)
                for filled in range(1, column):
                    value -= vectors[i, filled] * vectors[pivot, filled]
                vectors[i, column] = value / height
                left[i] = max(left[i] - vectors[i, column] ** 2, 0.0)
    return vectors, volume


@compiled
def _volumes(vectors: Array, r: int, s: int, c: int) -> tuple[float, float, float, float]:
    """The minors of rows r, s, c, by column left out; inner products of these are determinants (Cauchy–Binet)."""
    x, y, z = vectors[r], vectors[s], vectors[c]
    xy, xz, xw = x[0] * y[1] - x[1] * y[0], x[0] * y[2] - x[2] * y[0], x[0] * y[3] - x[3] * y[0]
    yz, yw, zw = x[1] * y[2] - x[2] * y[1], x[1] * y[3] - x[3] * y[1], x[2] * y[3] - x[3] * y[2]
    return (
        yz * z[3] - yw * z[2] + zw * z[1],
        xz * z[3] - xw * z[2] + zw * z[0],
        xy * z[3] - xw * z[1] + yw * z[0],
        xy * z[2] - xz * z[1] + yz * z[0],
    )


@compiled
def _inner(x: tuple[float, float, float, float], y: tuple[float, float, float, float]) -> float:
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3]


@compiled
def _plackett(gap: Array, b: int, c: int, d: int, three: float, four: float) -> float:
    r"""Growth of P as ρ_0b is turned on, when all correlations of variable 0 are scaled by τ from 0 to 1.

    .. math:: \int_0^1 \frac{ρ_{0b}}{\sqrt{1 - τ^2 ρ_{0b}^2}} \arcsin ρ_{cd | 0b}(τ) \, dτ .

    Numerator and determinants of the arcsine are linear in τ². Where the numerator changes its sign the
    integrand can be nearly a step, so the integral is split there.
    """
    rho, variance_b = 1 - gap[0, b], _given(gap, b, 0, 0)
    begin = _given(gap, b, c, d)
    end = begin * variance_b - _given(gap, b, 0, c) * _given(gap, b, 0, d)
    split = begin / (begin - end) if begin * end < 0 else 0.0
    split = math.sqrt(split)
    stride = 2 if four > _FAR else 1
    total = 0.0
    for piece in range(2):
        low, high = (0.0, split) if piece == 0 else (split, 1.0)
        if high > low:
            for i in range(0, _NODES.size, stride):
                tau = low + (high - low) * _NODES[i]
                left = (1 - high + (high - low) * _REMAINDERS[i]) * (1 + tau)  # 1 − τ²
                variance = variance_b + rho**2 * left
                determinant = four + (three - four) * left
                arcsine = math.atan2(end + (begin - end) * left, math.sqrt(determinant * variance))
                total += stride * (high - low) * _WEIGHTS[i] * rho / math.sqrt(variance) * arcsine
    return total


@compiled
def orthant_probability(gap: Array, d: int) -> float:
    """P of the first d variables of `gap`, 1 ≤ d ≤ 4; distinct variables, so gaps are positive off the diagonal."""
    if d == 1:
        return 0.5
    angles = 0.0  # Σ over pairs of arcsin ρ, in units of π
    for i in range(d):
        for j in range(i):
            angles += math.atan2(1 - gap[i, j], math.sqrt(gap[i, j] * (2 - gap[i, j])))
    angles /= math.pi
    if d == 2:
        return 1 / 4 + angles / 2
    if d == 3:
        return 1 / 8 + angles / 4
    vectors, volume = _vectors(gap)
    base = _volumes(vectors, 1, 2, 3)
    three, four = _inner(base, base), volume**2
    growth = (
        _plackett(gap, 1, 2, 3, three, four)
        + _plackett(gap, 2, 3, 1, three, four)
        + _plackett(gap, 3, 1, 2, three, four)
    )
    return 1 / 16 + angles / 8 + growth / (4 * math.pi**2)


@compiled
def orthant_moment(gap: Array, d: int, p: int, q: int) -> float:
    r"""M_pq of the first d variables of `gap`.

    .. math:: M_{pq} = ρ_{pq} P + \sum_{r \ne q} \sum_{s \ne r} ρ_{pr} (ρ_{qs} - ρ_{rs} ρ_{qr}) φ_{rs}
        P(\text{rest} \mid z_r = z_s = 0), \qquad φ_{rs} = \frac{1}{2π \sqrt{1 - ρ_{rs}^2}} .
    """
    total = (1 - gap[p, q]) * orthant_probability(gap, d)
    vectors, volume = _vectors(gap) if d == 4 else (gap, 0.0)
    for r in range(d):
        if r != q:
            for s in range(d):
                if s != r:
                    variance = _given(gap, r, s, s)
                    rest = 1.0 if d == 2 else 0.5
                    if d == 4:
                        c = 0 if r != 0 and s != 0 else (1 if r != 1 and s != 1 else 2)
                        e = 6 - r - s - c
                        covariance = _inner(_volumes(vectors, r, s, c), _volumes(vectors, r, s, e))
                        rest = 1 / 4 + math.atan2(covariance, math.sqrt(variance) * volume) / (2 * math.pi)
                    total += (1 - gap[p, r]) * _given(gap, r, q, s) / (2 * math.pi * math.sqrt(variance)) * rest
    return total
