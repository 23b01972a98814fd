"""The closed forms against Gauss–Hermite quadrature of the averages they stand for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from feedalign.errors import ArgumentError
from feedalign.theory.shallow import integrals
from feedalign.theory.shallow.integrals import Array

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


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(["zero", "identical", "student is teacher", "opposite"]),
    st.sampled_from(["erf", "linear"]),
)  # fmt: skip
def test_degenerate_covariances_stay_finite_and_consistent(seed: int, kind: str, name: str) -> None:
    """Zero, coinciding or opposite units: averages equal those of the units they coincide with."""
    code = integrals.activation_code(name)
    factor = np.random.default_rng(seed).standard_normal((4, 6))
    factor[1] = {"zero": 0.0, "identical": 1.0, "student is teacher": 0.0, "opposite": -1.0}[kind] * factor[0]
    if kind == "student is teacher":
        factor[1] = factor[2]
    C = factor @ factor.T / 6
    twin, sign = {"zero": (1, 1), "identical": (0, 1), "student is teacher": (2, 1), "opposite": (0, -1)}[kind]
    values = [integrals.i4(code, C, k, l, a, b) for k, l, a, b in itertools.product(range(4), repeat=4)]
    assert np.isfinite(values).all()
    for a in range(4):
        assert integrals.i2(code, C, 1, a) == pytest.approx(sign * integrals.i2(code, C, twin, a), abs=1e-7)
        assert integrals.i3(code, C, 0, a, 1) == pytest.approx(sign * integrals.i3(code, C, 0, a, twin), abs=1e-7)


def test_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match="'tanh' is unknown; expected one of erf, relu, linear"):
        integrals.activation_code("tanh")
