"""What is special to the experiment conditioned-feedback, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments.common.linear_backprop import backprop_losses

FAST, SLOW, RAISED, BEYOND = range(4)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("conditioned-feedback")


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"rule": 2, "conditioned": 2, "kind": 2, "outputs": 2, "draw": 2, "layer": 3}
    assert tiny.alpha.values.tolist() == [1.0, 0.5]


def test_backprop_follows_the_gradient_and_conditions_hidden_layers_alone() -> None:
    rng = np.random.default_rng(0)
    weights, teacher = (
        [0.5 * rng.standard_normal((5, 4)), 0.5 * rng.standard_normal((2, 5))],
        rng.standard_normal((2, 4)),
    )

    def loss(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.square(second @ first - teacher).sum() / 2)

    lr, P = 1e-6, np.array([[2.0, 0.3], [0.3, 0.5]])
    before = loss(*weights)
    error = weights[1] @ weights[0] - teacher
    slopes = [weights[1].T @ error @ np.eye(4), error @ weights[0].T]
    for conditioner in (None, P):
        moved = [weights[1].T @ (error if conditioner is None else conditioner @ error), slopes[1]]
        expected = before - lr * sum(float((a * b).sum()) for a, b in zip(slopes, moved, strict=True))
        found = backprop_losses(weights, teacher, lr, 1, conditioner)
        assert found[0] == pytest.approx(before)
        assert found[1] - before == pytest.approx(expected - before, rel=1e-3)


def ideal() -> xr.Dataset:
    """White outputs take 100 steps, others 400; conditioned ones 105; backprop's gain is a factor of two."""
    rng = np.random.default_rng(0)
    steps = np.empty((2, 2, 2, 3, 5))
    steps[0, 0], steps[0, 1] = np.array([100, 400, 350])[:, None], 105
    steps[1, 0], steps[1, 1] = np.array([180, 400, 360])[:, None], np.array([180, 200, 180])[:, None]
    alignment = np.empty((2, 2, 3, 5, 2))
    alignment[0], alignment[1] = 0.4, 0.7
    dims = ("conditioned", "kind", "outputs", "draw")
    return xr.Dataset(
        {
            "steps": (("rule", *dims), steps + rng.integers(-2, 3, steps.shape)),
            "gradient_alignment": ((*dims, "layer"), alignment + 0.01 * rng.standard_normal(alignment.shape)),
        },
        coords={"rule": ["dfa", "backprop"], "conditioned": [False, True], "kind": ["gaussian", "orthonormal"]}
        | {"alpha": ("outputs", [1.0, 0.2, 1.0]), "beta": ("outputs", [1.0, 1.0, 0.2])},
    )


def slow_one_pair(dataset: xr.Dataset) -> None:
    dataset.steps[0, 1, 1, 2] = 130


def plain_is_fast(dataset: xr.Dataset) -> None:
    dataset.steps[0, 0, 0, 1] = 110


def no_better_signal(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment[1, 0] = dataset.gradient_alignment[0, 0].values


def backprop_gains_as_much(dataset: xr.Dataset) -> None:
    dataset.steps[1] = dataset.steps[0].values


def never_there(dataset: xr.Dataset) -> None:
    dataset.steps[0, 1, 0, 1, 2] = np.nan


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (slow_one_pair, {FAST}),
    (plain_is_fast, {SLOW}),
    (no_better_signal, {RAISED}),
    (backprop_gains_as_much, {BEYOND}),
    (never_there, {FAST, BEYOND}),
]
