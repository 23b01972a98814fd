"""Global minima: they make no error, their distances are those of real weights, and DFA ends at the one foretold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.special import erf

from feedalign.checks import Array
from feedalign.errors import ArgumentError
from feedalign.theory import shallow
from feedalign.theory.shallow.drawing import draw_feedback, draw_start
from feedalign.theory.shallow.solutions import (
    can_recover,
    distances_to_minima,
    global_minima,
    nearest_minimum,
    recovery_probability,
    selected_solution,
)

G = {"erf": lambda u: erf(u / np.sqrt(2)), "relu": lambda u: np.maximum(u, 0)}
ACTIVATIONS = sorted(G)
N = 40

# Squared distances are differences of overlaps of size one: rounding of 1e-16 in them is 1e-8 in the distance.
DISTANCE = 1e-7

moderate = st.floats(-3, 3, allow_subnormal=False)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """A and F of one length, ties and zeros included."""
    K = draw(st.integers(1, 5))
    entry = moderate | st.sampled_from([-1.0, 0.0, 1.0])
    return draw(st.lists(entry, min_size=K, max_size=K)), draw(st.lists(entry, min_size=K, max_size=K))


@st.composite
def networks(draw: st.DrawFn) -> tuple[Array, Array, Array, Array]:
    """Weights w, w̃ [K, N], v, A [K] of a student and a teacher; sometimes a zero in v or A."""
    K, seed = draw(st.integers(1, 4)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    w, w_teacher = rng.standard_normal((2, K, N))
    v, A = rng.standard_normal((2, K)) * (rng.random((2, K)) > 0.1)
    return w, w_teacher, v, A


def state_of(w: Array, w_teacher: Array, v: Array, A: Array) -> shallow.OrderParameters:
    return shallow.OrderParameters.from_weights(w=w, w_teacher=w_teacher, v=v, A=A)


def weights_at(w_teacher: Array, A: Array, activation: str) -> list[tuple[Array, Array]]:
    """First and second layer of the student at every minimum, in order; for relu each with scales γ of its own."""
    rng, minima = np.random.default_rng(7), global_minima(A, activation)
    weights = []
    for permutation, signs, v in zip(minima.permutation, minima.signs, minima.v, strict=True):
        scale = rng.uniform(0.3, 3, len(A)) if activation == "relu" else np.ones(len(A))
        weights.append(((scale * signs)[:, None] * w_teacher[permutation], v / scale))
    return weights


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_at_every_minimum_student_and_teacher_are_one_function(activation: str, K: int) -> None:
    rng = np.random.default_rng(K)
    w_teacher, A, x = rng.standard_normal((K, N)), rng.standard_normal(K), rng.standard_normal((N, 100))
    y = A @ G[activation](w_teacher @ x / np.sqrt(N))
    minima = weights_at(w_teacher, A, activation)
    assert len(minima) == math.factorial(K) * (2**K if activation == "erf" else 1)
    for w, v in minima:
        np.testing.assert_allclose(v @ G[activation](w @ x / np.sqrt(N)), y, rtol=0, atol=1e-13)
        assert abs(state_of(w, w_teacher, v, A).generalisation_error(activation)) <= 1e-14


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_minima_are_distinct_and_the_first_is_the_teacher(activation: str) -> None:
    """Seen as pairs of both layers: equal |A_m| make second layers coincide, not minima."""
    w_teacher, A = np.random.default_rng(0).standard_normal((3, N)), np.array([1.0, -1.0, 1.0])
    minima = global_minima(A, activation)
    pairs = {(*p, *s) for p, s in zip(minima.permutation.tolist(), minima.signs.tolist(), strict=True)}
    assert len(pairs) == len(minima.v)
    np.testing.assert_array_equal(minima.v[0], A)
    for i, (w, v) in enumerate(weights_at(w_teacher, A, activation)):
        distances = distances_to_minima(state_of(w, w_teacher, v, A), activation)
        assert distances[i] < DISTANCE
        assert np.delete(distances, i).min() > 1.0  # random units in many dimensions are nearly orthogonal


@settings(deadline=None)
@given(pairs())
def test_the_selected_solution_maximises_its_product_with_the_feedback(pair: tuple[list[float], list[float]]) -> None:
    A, F = (np.array(values) for values in pair)
    minima, v = global_minima(A), selected_solution(A, F)
    assert (minima.v == v).all(axis=1).any()
    assert v @ F == pytest.approx((minima.v @ F).max(), abs=1e-12)


def test_where_feedback_does_not_decide_the_convention_does() -> None:
    np.testing.assert_array_equal(selected_solution([1.0, -2.0, 3.0], [0.5, 0.0, -0.5]), [3.0, 1.0, -2.0])
    np.testing.assert_array_equal(selected_solution(np.arange(1.0, 41.0), np.ones(40)), np.arange(40.0, 0.0, -1.0))


@pytest.mark.parametrize("K", range(1, 7))
@pytest.mark.parametrize("M", range(1, 7))
def test_recovery_probability_counts_the_signs_that_can_recover(K: int, M: int) -> None:
    recovered = [can_recover(np.ones(M), signs) for signs in itertools.product((-0.3, 2.0), repeat=K)]
    assert recovery_probability(K, M) == np.mean(recovered)


def test_recovery_probability_of_two_teacher_units() -> None:
    assert [recovery_probability(K, 2) for K in (1, 2, 3, 4)] == [0, 1 / 4, 1 / 2, 11 / 16]
    assert recovery_probability(3000, 1500) == pytest.approx(0.5, abs=0.01)  # 2^-3000 is no float


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1.5, 0.0, 0.5]), min_size=1, max_size=4), st.lists(moderate, min_size=1, max_size=4))
def test_recovery_needs_a_student_unit_of_the_same_sign_for_every_teacher_unit(A: list[float], F: list[float]) -> None:
    needed = [a for a in A if a]
    matched = any(
        all(a * f > 0 for a, f in zip(needed, p, strict=True)) for p in itertools.permutations(F, len(needed))
    )
    assert can_recover(A, F) == matched


@settings(deadline=None)
@given(networks())
def test_erf_distances_are_those_of_the_weights(network: tuple[Array, Array, Array, Array]) -> None:
    w, w_teacher, v, A = network
    expected = [
        math.sqrt(((w - w_min) ** 2).sum() / N + ((v - v_min) ** 2).sum())
        for w_min, v_min in weights_at(w_teacher, A, "erf")
    ]
    np.testing.assert_allclose(distances_to_minima(state_of(*network)), expected, atol=DISTANCE)


@settings(deadline=None)
@given(networks())
def test_relu_distances_are_those_of_the_products(network: tuple[Array, Array, Array, Array]) -> None:
    w, w_teacher, v, A = network
    expected = []
    for w_min, v_min in weights_at(w_teacher, A, "relu"):
        p, q = np.abs(v)[:, None] * w, np.abs(v_min)[:, None] * w_min
        straight, around = np.linalg.norm(p - q, axis=1), np.linalg.norm(p, axis=1) + np.linalg.norm(q, axis=1)
        expected.append(np.linalg.norm(np.where(v * v_min >= 0, straight, around)) / math.sqrt(N))
    np.testing.assert_allclose(distances_to_minima(state_of(*network), "relu"), expected, atol=DISTANCE)


@settings(deadline=None)
@given(networks(), st.lists(st.floats(0.1, 10), min_size=4, max_size=4))
def test_rescaling_a_relu_unit_changes_no_distance(
    network: tuple[Array, Array, Array, Array], scales: list[float]
) -> None:
    w, w_teacher, v, A = network
    scale = np.array(scales[: len(v)])
    moved = state_of(scale[:, None] * w, w_teacher, v / scale, A)
    expected = distances_to_minima(state_of(*network), "relu")
    np.testing.assert_allclose(distances_to_minima(moved, "relu"), expected, atol=DISTANCE)


@settings(deadline=None)
@given(networks(), st.sampled_from(ACTIVATIONS), st.integers(0, 2**32 - 1))
def test_a_symmetry_of_the_student_carries_minima_to_minima(
    network: tuple[Array, Array, Array, Array], activation: str, seed: int
) -> None:
    w, w_teacher, v, A = network
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(v))
    flip = rng.choice([-1.0, 1.0], len(v)) if activation == "erf" else np.ones(len(v))
    moved = state_of(flip[:, None] * w[order], w_teacher, flip * v[order], A)
    minima = global_minima(A, activation)
    names = np.hstack((minima.permutation, minima.signs)).tolist()
    carried = np.hstack((minima.permutation[:, order], flip * minima.signs[:, order])).tolist()
    expected = distances_to_minima(state_of(*network), activation)
    after = distances_to_minima(moved, activation)[[names.index(name) for name in carried]]
    np.testing.assert_allclose(after, expected, atol=DISTANCE)


@settings(deadline=None)
@given(networks(), st.sampled_from(ACTIVATIONS))
def test_no_way_through_a_third_state_is_shorter(network: tuple[Array, Array, Array, Array], activation: str) -> None:
    _, w_teacher, _, A = network
    direct = np.array(
        [distances_to_minima(state_of(w, w_teacher, v, A), activation) for w, v in weights_at(w_teacher, A, activation)]
    )
    via = distances_to_minima(state_of(*network), activation)
    assert (direct <= via[:, None] + via + DISTANCE).all()


@settings(deadline=None)
@given(networks(), st.sampled_from(ACTIVATIONS))
def test_the_nearest_minimum_is_the_first_of_the_list_by_distance(
    network: tuple[Array, Array, Array, Array], activation: str
) -> None:
    state, minima = state_of(*network), global_minima(network[3], activation)
    distances = distances_to_minima(state, activation)
    nearest, distance = nearest_minimum(state, activation)
    assert distance == pytest.approx(distances.min(), abs=DISTANCE)
    same = (minima.permutation == nearest.permutation).all(axis=1) & (minima.signs == nearest.signs).all(axis=1)
    assert same.sum() == 1
    assert distances[same] == pytest.approx(distance, abs=DISTANCE)
    np.testing.assert_array_equal(minima.v[same], [nearest.v])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_nearest_of_very_many_minima(activation: str) -> None:
    rng = np.random.default_rng(3)
    K = 20
    w_teacher, A, permutation = rng.standard_normal((K, 200)), rng.standard_normal(K), rng.permutation(K)
    signs = rng.choice([-1.0, 1.0], K) if activation == "erf" else np.ones(K)
    w = signs[:, None] * w_teacher[permutation] + 0.1 * rng.standard_normal((K, 200))
    nearest, distance = nearest_minimum(state_of(w, w_teacher, signs * A[permutation], A), activation)
    np.testing.assert_array_equal(nearest.permutation, permutation)
    np.testing.assert_array_equal(nearest.signs, signs)
    assert 0 < distance < 1


def test_dfa_ends_at_the_selected_solution() -> None:
    A, rng, converged = np.array([0.8, 1.5]), np.random.default_rng(0), 0
    for _ in range(12):
        start = draw_start(A, students=2, input_dim=500, rng=rng, w_std=1e-2, v_std=1e-2)
        feedback = draw_feedback("random", start, rng)
        final = shallow.integrate(start, feedback=feedback, lr=0.1, times=[20_000.0]).final
        if final.generalisation_error() < 1e-5:
            nearest, distance = nearest_minimum(final)
            assert distance < 0.1
            np.testing.assert_array_equal(nearest.v, selected_solution(A, feedback))
            converged += 1
    assert converged >= 8  # small |F_k| learn slowly; without this bound the test could pass on nothing


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_an_activation_without_isolated_minima_is_refused(activation: str) -> None:
    state = shallow.OrderParameters(Q=np.eye(1), R=np.eye(1), T=np.eye(1), v=np.ones(1), A=np.ones(1))
    message = f"activation='{activation}' has no list of minima, expected 'erf' or 'relu'"
    with pytest.raises(ArgumentError, match=message):
        global_minima([1.0, 2.0], activation)
    for measure in (distances_to_minima, nearest_minimum):
        with pytest.raises(ArgumentError, match=message):
            measure(state, activation)


@pytest.mark.parametrize("measure", [distances_to_minima, nearest_minimum])
def test_a_student_of_another_size_is_refused(measure: Callable[[shallow.OrderParameters], object]) -> None:
    state = shallow.OrderParameters(Q=np.eye(3), R=np.zeros((3, 2)), T=np.eye(2), v=np.ones(3), A=np.ones(2))
    with pytest.raises(ArgumentError, match=r"K = 3 students and M = 2 teachers; .* only for K = M"):
        measure(state)


def test_too_many_minima_are_not_listed() -> None:
    with pytest.raises(ArgumentError, match=r"K = 8 units has 10,321,920 minima, more than the 1,000,000"):
        global_minima(np.ones(8))
    with pytest.raises(ArgumentError, match=r"K = 10 units has 3,628,800 minima"):
        global_minima(np.ones(10), "relu")


@pytest.mark.parametrize("wrong", [[[1.0, 2.0]], [], [1.0, np.nan], [1.0, -np.inf], 1.0, "uniform", [1.0, [2.0]]])
def test_what_is_no_readout_is_refused(wrong: ArrayLike) -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("A", lambda: global_minima(wrong)),
        ("A", lambda: selected_solution(wrong, [1.0])),
        ("A", lambda: can_recover(wrong, [1.0])),
        ("F", lambda: selected_solution([1.0], wrong)),
        ("F", lambda: can_recover([1.0], wrong)),
    ]
    for name, call in calls:
        with pytest.raises(ArgumentError, match=f"{name} must (be an array of|hold finite numbers only)"):
            call()


def test_feedback_of_another_length_has_no_selected_solution() -> None:
    with pytest.raises(ArgumentError, match=r"A has 2 and F has 3 entries; .* as many units as the teacher"):
        selected_solution([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("wrong", [0, -1, 1.5, math.nan, math.inf])
def test_recovery_probability_is_of_whole_numbers(wrong: float) -> None:
    with pytest.raises(ArgumentError, match=f"K must be a whole number of at least 1 and at most 100000, got {wrong}"):
        recovery_probability(wrong, 1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=f"M must be a whole number of at least 1, got {wrong}"):
        recovery_probability(1, wrong)  # type: ignore[arg-type]
