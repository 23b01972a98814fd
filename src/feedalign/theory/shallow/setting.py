"""What stays fixed during learning: rule, feedback, learning rates, noise; checked once for theory and simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.errors import ArgumentError
from feedalign.theory.shallow.integrals import activation_code
from feedalign.theory.shallow.order_parameters import OrderParameters

Array = NDArray[np.float64]
Rule = Literal["dfa", "bp"]


@dataclass(frozen=True, eq=False)
class Setting:
    """How a student learns; `make` turns what the user gave into checked numbers.

    Attributes:
        feedback: F, the fixed vector that takes the place of v under DFA, [K]; NaN where backprop was given none.
        backprop: whether the error travels through v itself.
        activation: code of the activation.
        lr: η, learning rate of the first layer.
        lr_readout: η_v, learning rate of the second layer.
        noise_std: σ, standard deviation of the label noise.
        batch_size: inputs a step averages its update over.
    """

    feedback: Array
    backprop: bool
    activation: int
    lr: float
    lr_readout: float
    noise_std: float
    batch_size: int

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
        if rule not in ("dfa", "bp"):
            raise ArgumentError(f"rule={rule!r} is unknown; expected 'dfa' or 'bp'")
        if feedback is None and rule == "dfa":
            raise ArgumentError("rule='dfa' needs feedback=, the fixed vector F with one entry per student unit")
        vector = np.full(start.students, np.nan) if feedback is None else np.array(feedback, dtype=np.float64)
        if vector.shape != (start.students,) or (feedback is not None and not np.isfinite(vector).all()):
            raise ArgumentError(
                f"feedback must be {start.students} finite numbers, one per student unit, got {feedback!r}"
            )
        lr_readout = lr if lr_readout is None else lr_readout
        if not (np.isfinite(lr) and lr > 0):
            raise ArgumentError(f"lr={lr} must be a positive number")
        if not (np.isfinite(lr_readout) and lr_readout >= 0):
            raise ArgumentError(f"lr_readout={lr_readout} must be positive, or 0 to freeze the second layer")
        if not (np.isfinite(noise_std) and noise_std >= 0):
            raise ArgumentError(f"noise_std={noise_std} must be a number that is not negative")
        if batch_size != int(batch_size) or batch_size < 1:
            raise ArgumentError(f"batch_size={batch_size} must be a whole number of at least 1")
        return cls(
            vector, rule == "bp", activation_code(activation), float(lr), float(lr_readout), float(noise_std),
            int(batch_size),
        )  # fmt: skip


def check_times(times: ArrayLike) -> Array:
    """Return times as a float vector [n]: finite, not negative, increasing; ArgumentError otherwise."""
    checked = np.atleast_1d(np.array(times, dtype=np.float64))
    if checked.ndim != 1 or not checked.size:
        raise ArgumentError(f"times must be a vector of at least one time, got shape {checked.shape}")
    if not np.isfinite(checked).all() or checked[0] < 0:
        raise ArgumentError("times must be finite and not negative; the start is the state at time 0")
    late = np.flatnonzero(np.diff(checked) <= 0)
    if late.size:
        i = late[0]
        raise ArgumentError(
            f"times must increase, but times[{i + 1}]={checked[i + 1]:g} follows {checked[i]:g}; sort them"
        )
    return checked
