"""ReLU averages against what does not share their formulas: one-factor integrals, planes, 10⁷ draws, a library.

A one-factor covariance, u_i = s_i (λ_i x + √(1 − λ_i²) e_i), makes units independent given x, so that every average is
a single integral over x, done here with 30 digits. With λ_i near 1 the units nearly coincide.
"""

from __future__ import annotations

import itertools
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from feedalign.checks import Array
from feedalign.theory.shallow import integrals
from feedalign.theory.shallow.integrals import RELU
from feedalign.theory.shallow.orthants import orthant_probability

QUADRUPLES = list(itertools.product(range(4), repeat=4))


def one_factor(noise: list[float], signs: list[int]) -> tuple[Array, Any, Any]:
    """Return a covariance with unit variances, λ_i² = 1 − noise_i, and the exact P and I4(0, 1; 2, 3)."""
    with mp.workdps(30):
        loads = [sign * mp.sqrt(1 - mp.mpf(n)) for n, sign in zip(noise, signs, strict=True)]
        widths = [mp.sqrt(mp.mpf(n)) for n in noise]
        breaks = sorted({sign * k * float(w) for w in widths for sign in (-1, 1) for k in (1, 4, 12)} | {-4, 0, 4})
        path = [-mp.inf, *breaks, mp.inf]

        def active(i: int, x: Any) -> Any:
            return mp.ncdf(loads[i] * x / widths[i])

        def mean(i: int, x: Any) -> Any:
            z = loads[i] * x / widths[i]
            return widths[i] * (z * mp.ncdf(z) + mp.npdf(z))

        probability = mp.quad(lambda x: mp.npdf(x) * mp.fprod(active(i, x) for i in range(4)), path)
        moment = mp.quad(lambda x: mp.npdf(x) * active(0, x) * active(1, x) * mean(2, x) * mean(3, x), path)
        products = [[float(a * b) if i != j else 1.0 for j, b in enumerate(loads)] for i, a in enumerate(loads)]
    return np.array(products), probability, moment


@pytest.mark.parametrize("seed", range(6))
def test_one_factor_covariances_to_rounding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    C, probability, moment = one_factor(list(rng.uniform(0.02, 1, 4)), list(rng.choice([-1, 1], 4)))
    assert orthant_probability(1 - C, 4) == pytest.approx(float(probability), abs=1e-14)
    assert integrals.i4(RELU, C, 0, 1, 2, 3) == pytest.approx(float(moment), abs=1e-14)


@pytest.mark.parametrize("close", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize(
    ("noise", "digits_lost"),
    [
        # A factor of None is a unit far from the others.
        ([1, 1, None, None], False),
        ([1, None, 1, None], False),
        ([1, 2, 3, None], False),
        ([1, 2, 3, 4], False),
        # The angle between two units as seen from a third is that of differences of size √close.
        ([None, 1, 2, 3], True),
    ],
)
def test_units_that_nearly_coincide(
    close: float, noise: list[float | None], digits_lost: bool, record_property: Any
) -> None:
    C, _, moment = one_factor([0.7 if n is None else n * close for n in noise], [1, 1, 1, 1])
    error = abs(integrals.i4(RELU, C, 0, 1, 2, 3) - float(moment))
    record_property("error beside 30 digits", error)
    assert error < 5e-11 + (1e-18 / close if digits_lost else 0)


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=2), st.floats(-1, 1))
def test_a_unit_is_active_half_the_time_and_of_half_its_variance(variances: list[float], rho: float) -> None:
    """To the last digit: in I2 and J2 of a unit with itself nothing is near a root."""
    root = np.sqrt(variances)
    C = np.outer(root, root) * np.array([[1, rho], [rho, 1]])
    for k in range(2):
        assert integrals.j2(RELU, C, k, k) == 0.5
        assert integrals.i2(RELU, C, k, k) == C[k, k] / 2
        assert integrals.i3(RELU, C, k, k, k) == pytest.approx(C[k, k] / 2, rel=1e-15)


def planar_average(angles: Array, lengths: Array, integrand: Any) -> float:
    """E over u_i = length_i · r cos(φ − angle_i), r² ~ χ²_2, of a function that is quadratic in r."""
    kinks = np.sort(np.concatenate([angles + np.pi / 2, angles - np.pi / 2]) % (2 * np.pi))
    edges = np.concatenate([[0.0], kinks, [2 * np.pi]])
    nodes, weights = np.polynomial.legendre.leggauss(24)  # to rounding: between kinks it is a sum of sin and cos of 2φ
    total = 0.0
    for low, high in itertools.pairwise(edges):
        middle, half = (low + high) / 2, (high - low) / 2
        total += half * sum(
            w * integrand(lengths * np.cos(middle + half * x - angles)) for x, w in zip(nodes, weights, strict=True)
        )
    return float(total / np.pi)  # E r² = 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    st.lists(st.floats(0.1, 2), min_size=4, max_size=4),
    st.sampled_from(["free", "two equal", "two pairs", "all equal", "opposite", "nearly opposite", "close"]),
    st.sampled_from([(0, 1, 2, 3), (0, 1, 0, 2), (0, 0, 1, 2), (1, 2, 3, 3), (0, 1, 0, 1), (2, 2, 2, 2), (2, 2, 3, 3)]),
)
@example([0, 1, 2, 1.5], [1, 1, 1, 1], "free", (0, 1, 2, 3))
def test_four_units_in_a_plane(angles: list[float], lengths: list[float], kind: str, units: tuple[int, ...]) -> None:
    """Rank two: every determinant of the four-dimensional formulas vanishes; exact by geometry."""
    direction, length = np.array(angles), np.array(lengths)
    if kind == "two equal":
        direction[1] = direction[2]
    elif kind == "two pairs":
        direction[2:] = direction[:2]
    elif kind == "all equal":
        direction[:] = direction[0]
    elif kind == "opposite":
        direction[3] = direction[0] + np.pi
    elif kind == "nearly opposite":
        direction[3] = direction[0] + np.pi + 1e-3
    elif kind == "close":
        direction *= 0.01
    vectors = length[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    C = vectors @ vectors.T
    k, l, a, b = units

    def g4(u: Array) -> float:
        return float((u[k] > 0) * (u[l] > 0) * max(u[a], 0) * max(u[b], 0))

    def g3(u: Array) -> float:
        return float((u[k] > 0) * u[l] * max(u[a], 0))

    # P has a square-root singularity where units coincide, which turns rounding of 1e-16 in C into 1e-8.
    tolerance = 3e-7 * length.max() ** 2
    assert integrals.i4(RELU, C, k, l, a, b) == pytest.approx(planar_average(direction, length, g4), abs=tolerance)
    assert integrals.i3(RELU, C, k, l, a) == pytest.approx(planar_average(direction, length, g3), abs=tolerance)


def test_averages_agree_with_ten_million_draws(record_property: Any) -> None:
    """Every I2, I3, I4, J2 of a random covariance within its standard error; the largest deviation is reported."""
    rng = np.random.default_rng(7)
    factor = rng.standard_normal((4, 5))
    C = factor @ factor.T / 5
    draws, chunk = 10_000_000, 500_000
    names = [(2, c) for c in itertools.product(range(4), repeat=2)] + [(3, c) for c in QUADRUPLES if c[3] == 0]
    names += [(4, c) for c in QUADRUPLES if c[0] <= c[1] and c[2] <= c[3]] + [
        (0, (k, l)) for k in range(4) for l in range(k)
    ]
    total, square = np.zeros(len(names)), np.zeros(len(names))
    for _ in range(draws // chunk):
        u = factor @ rng.standard_normal((5, chunk)) / np.sqrt(5)
        on = (u > 0).astype(float)
        g = u * on
        gg = {(i, j): g[i] * g[j] for i in range(4) for j in range(i, 4)}
        oo = {(i, j): on[i] * on[j] for i in range(4) for j in range(i, 4)}
        for n, (kind, c) in enumerate(names):
            if kind == 2:
                sample = gg[min(c), max(c)]
            elif kind == 3:
                sample = on[c[0]] * u[c[1]] * g[c[2]]
            elif kind == 4:
                sample = oo[c[0], c[1]] * gg[c[2], c[3]]
            else:
                sample = oo[c[1], c[0]]
            total[n] += sample.sum()
            square[n] += sample @ sample
    mean = total / draws
    error = np.sqrt((square / draws - mean**2) / draws)
    exact = []
    for kind, c in names:
        average = {2: integrals.i2, 3: integrals.i3, 4: integrals.i4, 0: integrals.j2}[kind]
        exact.append(average(RELU, C, *(c[:3] if kind == 3 else c)))  # type: ignore[operator]
    z = (np.array(exact) - mean) / error
    record_property("largest deviation from 10^7 draws, in standard errors", float(np.abs(z).max()))
    assert np.abs(z).max() < stats.norm.isf(0.0005 / z.size)


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_orthant_probabilities_agree_with_the_library(d: int, seed: int) -> None:
    """scipy's multivariate normal: a closed form in two dimensions, a lattice rule with errors of its own above."""
    factor = np.random.default_rng(seed).standard_normal((d, d + 1))
    C = factor @ factor.T
    C /= np.sqrt(np.outer(np.diag(C), np.diag(C)))
    accuracy = {2: 1e-14, 3: 1e-7, 4: 1e-6}[d]
    normal = type(stats.multivariate_normal)(seed=1)
    library = normal.cdf(np.zeros(d), cov=C, maxpts=4_000_000, abseps=accuracy / 10, releps=0)
    gap = np.zeros((4, 4))
    gap[:d, :d] = 1 - C
    assert orthant_probability(gap, d) == pytest.approx(library, abs=accuracy)


@pytest.mark.parametrize("correlation", [-0.3, 0.0, 0.5, 0.99])
def test_equal_correlations(correlation: float) -> None:
    """P4 = 1/5 at ρ = 1/2, and 1/16 at ρ = 0; else one integral (Steck, 1962), for ρ ≥ 0."""
    gap = (1 - correlation) * (1 - np.eye(4))
    if correlation >= 0:
        root = np.sqrt(correlation / (1 - correlation))
        reference = integrate.quad(lambda x: stats.norm.pdf(x) * stats.norm.cdf(root * x) ** 4, -12, 12, epsabs=1e-13)[
            0
        ]
    else:  # inclusion and exclusion over the signs of one variable: P3 = P4(+) + P4(−)
        flipped = gap.copy()
        flipped[0, 1:] = flipped[1:, 0] = 1 + correlation
        reference = orthant_probability(gap, 3) - orthant_probability(flipped, 4)
    assert orthant_probability(gap, 4) == pytest.approx(reference, abs=1e-11)


def test_a_unit_without_variance_is_never_active() -> None:
    C = np.diag([0.0, 1.0, 2.0])
    for k, l, a, b in itertools.product(range(3), repeat=4):
        if 0 in (k, l, a, b):
            assert integrals.i4(RELU, C, k, l, a, b) == 0
    assert integrals.i3(RELU, C, 0, 1, 2) == integrals.j2(RELU, C, 0, 0) == integrals.i2(RELU, C, 0, 1) == 0
    assert integrals.i3(RELU, C, 1, 1, 0) == 0
