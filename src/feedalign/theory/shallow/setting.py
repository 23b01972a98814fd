"""What stays fixed during learning: rule, feedback, learning rates, noise; checked once for theory and simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from feedalign.checks import Array, finite_array, number_at_least, one_of, positive_number, whole_number
from feedalign.errors import ArgumentError
from feedalign.theory.shallow.integrals import activation_code
from feedalign.theory.shallow.order_parameters import OrderParameters, check_state

Rule = Literal["dfa", "bp"]

LONGEST = 2.0**53


@dataclass(frozen=True, eq=False)
class Setting:
    """How a student learns; `make` turns what the user gave into checked numbers."""

    feedback: Array  # F, the fixed vector that takes the place of v under DFA, [K]; NaN for backprop without feedback
    backprop: bool  # whether the error travels through v itself
    activation: int  # code of the activation
    lr: float  # η, learning rate of the first layer
    lr_readout: float  # η_v, learning rate of the second layer
    noise_std: float  # σ, standard deviation of the label noise
    batch_size: int  # inputs a step averages its update over

    @classmethod
    def make(
        cls,
        start: OrderParameters,
        feedback: ArrayLike | None,
        rule: str,
        activation: str,
        lr: float,
        lr_readout: float | None,
        noise_std: float,
        batch_size: int,
    ) -> Setting:
        """Check a setting against the state it starts from; ArgumentError says what does not fit."""
        check_state("start", start)
        one_of("rule", rule, get_args(Rule))
        if feedback is None and rule == "dfa":
            raise ArgumentError("rule='dfa' needs feedback=, the fixed vector F with one entry per student unit")
        K = start.students
        vector = np.full(K, np.nan) if feedback is None else finite_array("feedback", feedback, (K,))
        return cls(
            feedback=vector.copy(),
            backprop=rule == "bp",
            activation=activation_code(activation),
            lr=positive_number("lr", lr),
            lr_readout=number_at_least("lr_readout", lr if lr_readout is None else lr_readout, 0),
            noise_std=number_at_least("noise_std", noise_std, 0),
            batch_size=whole_number("batch_size", batch_size, 1),
        )


def check_times(times: ArrayLike) -> Array:
    """Return times as a float vector [n]: finite, not negative, increasing; ArgumentError otherwise."""
    checked = np.atleast_1d(finite_array("times", times))
    if checked.ndim != 1 or not checked.size:
        raise ArgumentError(f"times must be a vector of at least one time, got shape {checked.shape}")
    if checked[0] < 0:
        raise ArgumentError(f"times must not be negative, got {checked[0]:g}; the start is the state at time 0")
    if checked.max() > LONGEST:
        raise ArgumentError(f"times reach to {checked.max():g}; beyond {LONGEST:g} floats do not tell t from t + 1")
    late = np.flatnonzero(np.diff(checked) <= 0)
    if late.size:
        i = late[0]
        raise ArgumentError(
            f"times must increase, but times[{i + 1}]={checked[i + 1]:g} follows {checked[i]:g}; sort them"
        )
    return checked
