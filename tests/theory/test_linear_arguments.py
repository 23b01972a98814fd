"""What the theory of deep linear networks refuses, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.cases.linear import problem

from feedalign.errors import ArgumentError
from feedalign.theory import linear


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones(3)}, r"x must be an array of shape \[samples, n_0\], got shape \[3\]"),
        ({"y": np.ones((5, 3))}, r"y must be an array of shape \[12, C\], got shape \[5, 3\]"),
        ({"y": np.full((12, 3), np.nan)}, r"y must hold finite numbers only, got nan at y\[0, 0\]"),
        ({"feedback": []}, "feedback is empty"),
        ({"feedback": [np.ones((4, 2))]}, r"feedback\[0\] must be an array of shape \[n, 3\], got shape \[4, 2\]"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": np.nan}, "lr must be a finite number above 0, got nan"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"conditioning": np.eye(2)}, r"conditioning must be an array of shape \[3, 3\]"),
        ({"record": [9]}, "record=9 is no epoch of the training; expected 0 to 2"),
    ],
)
def test_bad_input_says_what_was_expected(change: dict[str, Any], message: str) -> None:
    x, y, F = problem()
    arguments: dict[str, Any] = {"x": x, "y": y, "feedback": F, "lr": 0.1, "epochs": 2, **change}
    with pytest.raises(ArgumentError, match=message):
        linear.train(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_bad_input_of_the_others() -> None:
    _, _, F = problem()
    with pytest.raises(ArgumentError, match="cov_yx has rank 1, expected that of its 2 outputs"):
        linear.conditioner(np.ones((2, 4)))
    with pytest.raises(ArgumentError, match="symmetric and positive semi-definite"):
        linear.population(-np.eye(4), np.ones((3, 4)), feedback=F, lr=0.1, steps=2)
    with pytest.raises(ArgumentError, match="noise_std must be a finite number of at least 0, got -1"):
        linear.population(np.eye(4), np.ones((3, 4)), feedback=F, lr=0.1, steps=2, noise_std=-1)
    with pytest.raises(ArgumentError, match="3 orthonormal columns need widths of at least 3, got 2"):
        linear.draw_feedback([2], 3, np.random.default_rng(0), "orthonormal")
    with pytest.raises(ArgumentError, match="kind='other' is unknown; expected one of gaussian, orthonormal"):
        linear.draw_feedback([9], 3, np.random.default_rng(0), "other")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="got 1 weights and 3 feedback matrices"):
        linear.residuals([np.eye(3)], F)
