"""What the two solvers of the shallow theory refuse, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from feedalign.errors import ArgumentError
from feedalign.theory import shallow

MakeStart = Callable[..., shallow.OrderParameters]
F = np.array([0.7, -1.1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.0, 2.0, 1.0]}, r"times must increase, but times\[2\]=1 follows 2; sort them"),
        ({"times": [1.0, 1.0]}, r"times must increase"),
        ({"times": []}, "at least one time"),
        ({"times": [-1.0, 1.0]}, "times must not be negative, got -1"),
        ({"times": [0.0, np.nan]}, r"times must hold finite numbers only, got nan at times\[1\]"),
        ({"times": [1e300]}, r"times reach to 1e\+300; beyond 9.0072e\+15 floats do not tell t from t \+ 1"),
        ({"activation": "tanh"}, "activation='tanh' is unknown; expected one of erf"),
        ({"rule": "fa"}, "rule='fa' is unknown; expected one of dfa, bp"),
        ({"feedback": None}, "rule='dfa' needs feedback="),
        ({"feedback": [1.0]}, r"feedback must be an array of shape \[2\], got shape \[1\]"),
        ({"feedback": [1.0, np.nan]}, r"feedback must hold finite numbers only, got nan at feedback\[1\]"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": np.nan}, "lr must be a finite number above 0, got nan"),
        ({"lr_readout": -0.1}, "lr_readout must be a finite number of at least 0, got -0.1"),
        ({"noise_std": -0.1}, "noise_std must be a finite number of at least 0, got -0.1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"lr": "fast"}, "lr must be a finite number above 0, got 'fast'"),
        ({"lr": None}, "lr must be a finite number above 0, got None"),
        ({"noise_std": np.nan}, "noise_std must be a finite number of at least 0, got nan"),
        ({"times": "late"}, "times must be an array of real numbers, got 'late'"),
        ({"feedback": "random"}, r"feedback must be an array of real numbers of shape \[2\], got 'random'"),
        ({"activation": ["erf"]}, r"activation=\['erf'\] is unknown"),
        ({"batch_size": np.nan}, "batch_size must be a whole number of at least .*, got nan"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, got 1.5"),
    ],
)
@pytest.mark.parametrize("solve", ["integrate", "simulate"])
def test_bad_input_says_what_was_expected(
    make_start: MakeStart, solve: str, change: dict[str, Any], message: str
) -> None:
    kwargs: dict[str, Any] = {"feedback": F, "lr": 0.1, "times": [0.0, 1.0], **change}
    if solve == "simulate":
        kwargs["input_dim"] = 50
    with pytest.raises(ArgumentError, match=message):
        getattr(shallow, solve)(make_start(), **kwargs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "Euler"}, "method='Euler' is unknown; expected one of LSODA, RK45"),
        ({"rtol": 0.0}, "rtol must be a finite number above 0, got 0.0"),
        ({"atol": np.nan}, "atol must be a finite number above 0, got nan"),
        ({"max_step": 0.0}, "max_step must be a finite number above 0, got 0.0"),
        ({"stop_at_error": "small"}, "stop_at_error must be a finite number above 0, got 'small'.*; or None"),
    ],
)
def test_a_bad_solver_option_says_what_was_expected(
    make_start: MakeStart, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        shallow.integrate(make_start(), feedback=F, lr=0.1, times=[1.0], **change)


@pytest.mark.parametrize("wrong", [0, -1, np.nan, np.inf, True, "long"])
def test_a_limit_is_a_positive_number_of_seconds(make_start: MakeStart, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=r"max_seconds must be a finite number above 0, got .*; or None for"):
        shallow.integrate(make_start(), feedback=F, lr=0.1, times=[1.0], max_seconds=wrong)
