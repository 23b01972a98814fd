"""The closed forms against Gauss–Hermite quadrature of the averages they stand for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from feedalign.checks import Array
from feedalign.errors import ArgumentError
from feedalign.theory.shallow import integrals

G: dict[str, Callable[[Array], Any]] = {
    "erf": lambda u: erf(u / np.sqrt(2)),
    "relu": lambda u: np.maximum(u, 0),
    "linear": lambda u: u,
}
SLOPE: dict[str, Callable[[Array], Any]] = {
    "erf": lambda u: np.sqrt(2 / np.pi) * np.exp(-(u**2) / 2),
    "relu": lambda u: 1.0 * (u > 0),
    "linear": np.ones_like,
}


def quadrature(C: Array, nodes: int = 24) -> tuple[Array, Array]:
    """Points u [n, points] and weights [points] of a Gauss–Hermite rule for N(0, C)."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(itertools.product(x, repeat=len(C))))
    weights = np.array(list(itertools.product(w, repeat=len(C)))).prod(axis=1)
    return np.linalg.cholesky(C) @ grid.T, weights / weights.sum()


def covariance(seed: int, size: int = 4) -> Array:
    factor = np.random.default_rng(seed).standard_normal((size, size + 2))
    C: Array = 0.4 * factor @ factor.T / size
    return C


@pytest.mark.parametrize("name", ["erf", "linear"])
@pytest.mark.parametrize("seed", [0, 1])
def test_closed_forms_equal_quadrature(name: str, seed: int) -> None:
    code, C = integrals.activation_code(name), covariance(seed)
    u, weights = quadrature(C)
    g, slope = G[name](u), SLOPE[name](u)
    for a, b in itertools.product(range(4), repeat=2):
        assert integrals.i2(code, C, a, b) == pytest.approx(weights @ (g[a] * g[b]), abs=1e-7)
        assert integrals.j2(code, C, a, b) == pytest.approx(weights @ (slope[a] * slope[b]), abs=1e-7)
        for k in range(4):
            expected = weights @ (slope[k] * u[a] * g[b])
            assert integrals.i3(code, C, k, a, b) == pytest.approx(expected, abs=1e-7)
            for l in range(4):
                expected = weights @ (slope[k] * slope[l] * g[a] * g[b])
                assert integrals.i4(code, C, k, l, a, b) == pytest.approx(expected, abs=1e-7)


def test_slope_is_the_derivative() -> None:
    h = 1e-6
    for code in integrals.ACTIVATIONS.values():
        for u in (-1.3, 0.2, 0.9):
            rise = integrals.activate(code, u + h) - integrals.activate(code, u - h)
            assert integrals.activation_slope(code, u) == pytest.approx(rise / (2 * h), abs=1e-9)


def test_erf_averages_beside_thirty_digits(record_property: Any) -> None:
    """Given x, the units u_i = λ_i x + w_i e_i are independent, and every average is one integral over x."""
    C, loads, widths = np.empty((4, 4)), [1.3, -0.7, 0.9, 2.0], [0.5, 1.2, 0.1, 0.8]
    for i, j in itertools.product(range(4), repeat=2):
        C[i, j] = loads[i] * loads[j] + (widths[i] ** 2 if i == j else 0)

    def g(i: int, x: Any) -> Any:  # E[g(u_i) | x]
        return mp.erf(loads[i] * x / mp.sqrt(2 * (1 + mp.mpf(widths[i]) ** 2)))

    def slope(i: int, x: Any) -> Any:  # E[g'(u_i) | x]
        variance = 1 + mp.mpf(widths[i]) ** 2
        return mp.sqrt(2 / mp.pi / variance) * mp.exp(-((loads[i] * x) ** 2) / 2 / variance)

    def unit(i: int, x: Any) -> Any:  # E[u_i | x]
        return loads[i] * x

    @cache
    def average(factors: frozenset[tuple[Callable[[int, Any], Any], int]]) -> float:
        with mp.workdps(30):
            return float(
                mp.quad(lambda x: mp.npdf(x) * mp.fprod(f(i, x) for f, i in factors), mp.linspace(-12, 12, 13))
            )

    errors = []
    for k, l, a, b in itertools.permutations(range(4)):
        errors += [
            integrals.i2(integrals.ERF, C, a, b) - average(frozenset({(g, a), (g, b)})),
            integrals.j2(integrals.ERF, C, k, l) - average(frozenset({(slope, k), (slope, l)})),
            integrals.i3(integrals.ERF, C, k, l, a) - average(frozenset({(slope, k), (unit, l), (g, a)})),
            integrals.i4(integrals.ERF, C, k, l, a, b) - average(frozenset({(slope, k), (slope, l), (g, a), (g, b)})),
        ]
    record_property("largest error beside 30 digits", float(np.abs(errors).max()))
    assert np.abs(errors).max() < 1e-14


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["zero", "identical", "student is teacher", "opposite"]),
    st.sampled_from(sorted(integrals.ACTIVATIONS)),
)
def test_degenerate_covariances_stay_finite_and_consistent(seed: int, kind: str, name: str) -> None:
    """Coinciding units have the averages of one; an odd activation turns signs with a unit; a unit of zero is none."""
    code = integrals.activation_code(name)
    factor = np.random.default_rng(seed).standard_normal((4, 6))
    twin, sign = {"zero": (1, 0), "identical": (0, 1), "student is teacher": (2, 1), "opposite": (0, -1)}[kind]
    factor[1] = sign * factor[twin]
    C = factor @ factor.T / 6
    quadruples = list(itertools.product(range(4), repeat=4))
    i4 = {c: integrals.i4(code, C, *c) for c in quadruples}
    assert np.isfinite(list(i4.values())).all()
    if kind == "zero":
        for a, k in itertools.product(range(4), repeat=2):
            assert integrals.i2(code, C, 1, a) == integrals.i3(code, C, k, a, 1) == i4[k, k, 1, a] == 0
        return
    if name == "relu" and sign == -1:
        for a, b in itertools.product(range(4), repeat=2):  # never active together
            assert i4[0, 1, a, b] == pytest.approx(0, abs=1e-12)
            assert integrals.j2(code, C, 0, 1) == pytest.approx(
                0, abs=1e-7
            )  # the root of what rounding leaves of 1 − ρ
        return
    for a, k in itertools.product(range(4), repeat=2):
        # Where units coincide, rounding of 1e-16 in C enters a root: 1e-8, and 1e-7 where C is large.
        assert integrals.i2(code, C, 1, a) == pytest.approx(sign * integrals.i2(code, C, twin, a), abs=1e-7)
        assert integrals.i3(code, C, k, a, 1) == pytest.approx(sign * integrals.i3(code, C, k, a, twin), abs=1e-7)
        assert integrals.j2(code, C, 1, a) == pytest.approx(integrals.j2(code, C, twin, a), abs=1e-7)
    for k, l, a, b in quadruples:
        same = i4[tuple(twin if unit == 1 else unit for unit in (k, l, a, b))]
        assert i4[k, l, a, b] == pytest.approx(sign ** (a == 1) * sign ** (b == 1) * same, abs=1e-7)


def test_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match="'tanh' is unknown; expected one of erf, relu, linear"):
        integrals.activation_code("tanh")
