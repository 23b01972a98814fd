"""What is said before training, against slow computations."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm

import feedalign as fa
from feedalign.diagnosis import Moment
from feedalign.diagnosis.batches import Batches
from feedalign.diagnosis.expectation import conditioner, predicted_steps
from feedalign.diagnosis.looking import look
from feedalign.diagnosis.preparing import Task
from feedalign.theory import linear

Array = NDArray[np.float64]


def test_the_conditioner_is_that_of_the_rule_on_many_errors() -> None:
    rng = np.random.default_rng(0)
    errors = rng.standard_normal((50_000, 3)) * [1, 0.3, 0.1]
    net = fa.ConditionedDFA(fa.networks.MLP([4, 8, 3]).double())
    net(torch.zeros(50_000, 4, dtype=torch.float64)).backward(torch.from_numpy(errors))
    # The rule adds three white errors.
    moment = Moment.of(errors.T / np.sqrt(len(errors)))
    np.testing.assert_allclose(conditioner(moment), net.conditioner.numpy(), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(
    ("alpha", "beta", "outputs", "correlation", "times"),
    [(0.2, 1, [(0,), (1,)], np.nan, 1.5), (1, 0.2, [(0, 1), (0, 1)], 0.8, 1.3)],
)
def test_directions_and_steps_on_two_outputs(
    alpha: float, beta: float, outputs: Any, correlation: float, times: float
) -> None:
    covariance = np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])
    found = Moment(covariance).directions
    assert [tuple(sorted(direction.outputs)) for direction in found] == outputs
    assert found[0].factor > 2 > 0.5 > found[1].factor
    np.testing.assert_allclose([direction.correlation for direction in found], correlation)
    F = linear.draw_feedback([100, 100, 100], 2, np.random.default_rng(0))
    plain, conditioned = predicted_steps(Moment(covariance), F)
    assert plain > times * conditioned
    white = predicted_steps(Moment(np.eye(2) * 7), F)
    assert white[0] == white[1]


def test_predicted_steps_know_no_scale_of_outputs_or_feedback() -> None:
    rng = np.random.default_rng(0)
    F = linear.draw_feedback([50, 50], 3, rng)
    moment = np.real(sqrtm(np.diag([9.0, 1.0, 4.0])))
    base = predicted_steps(Moment(moment), F)
    np.testing.assert_array_equal(predicted_steps(Moment(1e-6 * moment), [10 * matrix for matrix in F]), base)


@pytest.mark.parametrize(("outputs", "layers"), [(201, 1), (150, 3)])
def test_steps_that_would_take_minutes_to_count_are_left_out(outputs: int, layers: int) -> None:
    """What counts is the number of directions in which the outputs vary, not the number of outputs."""
    F = [np.ones((2, outputs))] * layers
    moment = np.diag(np.linspace(1, 2, outputs))
    assert np.isnan(predicted_steps(Moment(moment), F)).all()
    few = np.diag(np.concatenate([np.ones(3), np.zeros(outputs - 3)]))
    F = linear.draw_feedback([100] * layers, outputs, np.random.default_rng(0))
    assert np.isfinite(predicted_steps(Moment(few), F)).all()


def test_equal_outputs_have_no_direction_to_name() -> None:
    e = 0.1 - np.eye(10)  # of a softmax, untrained, over balanced classes
    moment = Moment(e.T @ e / 10)
    assert moment.directions == ()
    assert moment.spectrum.rank == 9
    assert moment.spectrum.condition_number == pytest.approx(1)
    assert moment.spectrum.effective_rank == pytest.approx(9)


def test_an_output_without_any_variance_divides_nothing_by_zero() -> None:
    (direction,) = Moment(np.diag([9.0, 0.1, 0.0, 0.0, 0.0])).directions[:1]
    assert direction.outputs == (0,)
    assert direction.excess == np.inf


def test_a_diagnosis_says_that_steps_were_left_out() -> None:
    x = torch.randn(300, 250, generator=torch.Generator().manual_seed(0))
    batches = [(x, torch.arange(300) % 250)]
    net = fa.networks.MLP([250, 8, 250])
    found = fa.diagnose(net, torch.nn.functional.cross_entropy, batches, steps=1)
    assert all(np.isnan(each.steps) for each in found.expected.values())
    assert "steps of DFA and ConditionedDFA were not estimated: there are too many outputs" in found.table()


def test_a_moment_of_few_samples_is_decomposed_as_its_matrix_is() -> None:
    """Of n samples and C > n outputs there are n directions, and a matrix [n, n] tells them."""
    errors = np.random.default_rng(0).standard_normal((7, 40)) * np.linspace(1, 3, 40)
    few, whole = Moment.of(errors.T / np.sqrt(7)), Moment(errors.T @ errors / 7)
    assert few.factor is not None
    np.testing.assert_allclose(few.matrix, whole.matrix, atol=1e-12)
    np.testing.assert_allclose(few.decomposition[0], whole.decomposition[0], rtol=1e-9)
    signs = np.sign((few.decomposition[1] * whole.decomposition[1]).sum(0))
    np.testing.assert_allclose(few.decomposition[1] * signs, whole.decomposition[1], atol=1e-9)
    assert few.spectrum.rank == whole.spectrum.rank == 7
    np.testing.assert_allclose(few.spectrum.values, whole.spectrum.values, atol=1e-12)


def test_with_many_outputs_fewer_samples_are_looked_at() -> None:
    """Ten million numbers of errors are enough, and what is said names only the largest outputs."""
    outputs = 4000
    x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randint(outputs, (3000,), generator=torch.Generator().manual_seed(1))
    batches = list(zip(x.split(250), y.split(250), strict=True))
    seen = look(fa.DFA(fa.networks.MLP([3, 4, outputs])), task(batches), samples=10_000)
    assert seen.errors.shape == (2500, outputs)


def task(batches: list[Any]) -> Task:
    loss = torch.nn.functional.cross_entropy
    return Task(loss, Batches(batches), batches[0], np.zeros((1, 1)), seed=0, steps=1, lr=0.1)


def test_a_direction_of_many_outputs_names_the_largest_ones() -> None:
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    found = fa.diagnose(
        fa.networks.MLP([30, 8, 60]), torch.nn.functional.cross_entropy, [(x, torch.arange(40))], steps=1
    )
    assert re.search(
        r"smallest .* of the typical direction: outputs (\d+, ){9}\d+ and \d+ more together", found.table()
    )
