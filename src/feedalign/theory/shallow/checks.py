"""What a user gave, as checked numbers: each function returns its value converted, or says what was expected of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.errors import ArgumentError


def array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """A new array of floats, of any shape; NaN and infinity are the caller's to judge."""
    try:
        if not np.iscomplexobj(value):
            return np.array(value, dtype=np.float64)
    except (TypeError, ValueError):  # words, or rows of different lengths
        pass
    raise ArgumentError(f"{name} must be an array of real numbers, got {value!r}")


def positive(name: str, value: Any, otherwise: str = "") -> float:
    """A finite number above zero; `otherwise` tells of what else is allowed, which the caller has dealt with."""
    number = _real(value)
    if not 0 < number < math.inf:
        raise ArgumentError(f"{name}={value!r} must be a positive number{otherwise}")
    return number


def not_negative(name: str, value: Any, zero: str = "") -> float:
    """A finite number of at least zero; `zero` tells what that one means."""
    number = _real(value)
    if not 0 <= number < math.inf:
        raise ArgumentError(f"{name}={value!r} must be a number that is not negative{zero}")
    return number


def _real(value: Any) -> float:
    """NaN, which no comparison lets pass, for what is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan


def whole(name: str, value: Any, least: int, formula: str = "") -> int:
    """A whole number of at least `least`, given by a formula or not; a float without fraction is one."""
    try:
        if value >= least and value % 1 == 0:
            return int(value)
    except (TypeError, ValueError):
        pass
    raise ArgumentError(f"{name}={value!r} must be a whole number of at least {formula}{least}")


def one_of(name: str, value: object, known: Iterable[str]) -> str:
    """One of a few words."""
    for word in known:
        if value == word:
            return word
    raise ArgumentError(f"{name}={value!r} is unknown; expected one of {', '.join(known)}")
