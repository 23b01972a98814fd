"""The minimum that DFA takes: symmetries of the prediction, cases known beforehand, and the full equations."""

from __future__ import annotations

import numpy as np
import pytest

from feedalign.errors import ArgumentError
from feedalign.theory import shallow
from feedalign.theory.shallow import draw_feedback, draw_start, nearest_minimum, predicted_minimum, selected_solution

# A draw whose minimum is not the one with the largest v·F: the units with the smaller |F_k| have exchanged places.
A, F = np.array([0.6, 1.1, 1.8]), np.array([0.62, 2.21, 2.33])


def test_the_order_is_not_that_of_the_largest_overlap() -> None:
    np.testing.assert_array_equal(predicted_minimum(A, F), [1.1, 0.6, 1.8])
    np.testing.assert_array_equal(selected_solution(A, F), [0.6, 1.1, 1.8])


@pytest.mark.parametrize("teacher", range(3))
def test_every_small_start_leads_to_the_predicted_minimum(teacher: int) -> None:
    start = draw_start(A, students=3, input_dim=500, rng=np.random.default_rng(teacher), w_std=0.01, v_std=0.01)
    end = shallow.integrate(start, feedback=F, lr=0.1, times=[1e5], stop_at_error=1e-3).final
    np.testing.assert_array_equal(nearest_minimum(end)[0].v, predicted_minimum(A, F))


def test_the_prediction_turns_and_moves_with_the_units() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        flips, order = rng.choice([-1.0, 1.0], size=3), rng.permutation(3)
        expected = (flips * predicted_minimum(A, F))[order]
        np.testing.assert_array_equal(predicted_minimum(A, (flips * F)[order]), expected)


def test_signs_and_order_of_the_teacher_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    T = np.corrcoef(rng.standard_normal((3, 50)))
    flips, order = np.array([1.0, -1.0, -1.0]), np.array([2, 0, 1])
    turned = (flips[:, None] * T * flips)[np.ix_(order, order)]
    end = predicted_minimum((flips * A)[order], F, T=turned)
    np.testing.assert_array_equal(np.abs(end), np.abs(predicted_minimum(A, F, T=T)))
    assert (end > 0).all()


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_only_the_product_of_feedback_readout_and_rates_counts(scale: float) -> None:
    """A → c A with F → F / c changes v to c v alone; F → c F with η_v → c η_v changes the unit of time alone."""
    near_the_border = np.array([0.3, 1.0, 1.1])
    expected = predicted_minimum(A, near_the_border)
    np.testing.assert_allclose(predicted_minimum(scale * A, near_the_border / scale), scale * expected)
    np.testing.assert_array_equal(predicted_minimum(A, scale * near_the_border, readout_rate=scale), expected)


def test_the_scale_of_the_feedback_can_decide() -> None:
    """The order depends on |F| as well as on its direction: a law in ratios of |F_k| alone cannot be exact."""
    near_the_border = np.array([0.3, 1.0, 1.1])
    np.testing.assert_array_equal(predicted_minimum(A, near_the_border), [0.6, 1.1, 1.8])
    np.testing.assert_array_equal(predicted_minimum(A, 4 * near_the_border), [1.1, 0.6, 1.8])


def test_one_unit_takes_the_sign_and_two_take_the_largest_overlap() -> None:
    np.testing.assert_array_equal(predicted_minimum([0.7], [-2.0]), [-0.7])
    rng = np.random.default_rng(2)
    for _ in range(5):
        readout, feedback = rng.uniform(0.5, 2.0, 2), rng.standard_normal(2)
        np.testing.assert_array_equal(predicted_minimum(readout, feedback), selected_solution(readout, feedback))


@pytest.mark.parametrize(("K", "least"), [(3, 18), (4, 17)])
def test_the_full_equations_agree_on_fixed_draws(K: int, least: int) -> None:
    """Of 20 draws each. The bound leaves room for draws near the border; the largest v·F agrees on about 15 and 11."""
    readout, hits = np.array([0.5, 0.9, 1.4, 2.0])[:K], 0
    for draw in range(20):
        rng = np.random.default_rng([11, K, draw])
        start = draw_start(readout, students=K, input_dim=500, rng=rng, w_std=1e-3, v_std=1e-3)
        feedback = draw_feedback("random", start, rng)
        feedback = np.sign(feedback) * np.maximum(np.abs(feedback), 0.1)  # smaller entries only make learning slow
        end = shallow.integrate(
            start, feedback=feedback, lr=0.1, times=[1e5], stop_at_error=1e-4, rtol=1e-7, atol=1e-9
        ).final
        hits += np.array_equal(nearest_minimum(end)[0].v, predicted_minimum(readout, feedback, T=start.T))
    assert hits >= least


def test_what_has_no_prediction_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"F must have no zero entry, got \[1. 0.\]"):
        predicted_minimum([1.0, 2.0], [1.0, 0.0])
    with pytest.raises(ArgumentError, match=r"A must have no zero entry"):
        predicted_minimum([0.0, 2.0], [1.0, 0.5])
    with pytest.raises(ArgumentError, match=r"A has 2 and F has 1 entries"):
        predicted_minimum([1.0, 2.0], [1.0])
    with pytest.raises(ArgumentError, match="positive semi-definite"):
        predicted_minimum([1.0, 2.0], [1.0, 0.5], T=[[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ArgumentError, match="still on a plateau"):
        predicted_minimum([1.0], [1e-5])
