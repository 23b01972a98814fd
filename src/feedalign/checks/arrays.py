"""Checks of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.checks.values import refused, shown
from feedalign.errors import ArgumentError


def real_array(name: str, value: ArrayLike, shape: tuple[int | str, ...] | None = None) -> NDArray[np.float64]:
    """Return a new float64 array of real numbers, NaN and infinity allowed.

    Args:
        name: see `finite_number`.
        value: anything that numpy makes an array of integers or floats of.
        shape: what the shape must be: a number for an axis of that size, a letter such as "K" for an axis of any size
            above 0. Any shape unless given, also an empty one.

    Raises:
        ArgumentError: numpy can make no array of it, its entries are no real numbers (bool, text, complex, objects,
            masked), or it has another shape.
    """
    wanted = "" if shape is None else f" of shape [{', '.join(map(str, shape))}]"
    try:
        found = np.asarray(value)
    except Exception as error:  # an object's own __array__ may raise anything; numpy raises three kinds itself
        raise refused(name, f"an array of real numbers{wanted}", value, f"numpy says: {shown(str(error))}") from error
    if found.dtype.kind not in "iuf" or np.ma.is_masked(value):
        raise refused(
            name,
            f"an array of real numbers{wanted}",
            value,
            f"numpy reads it as {found.dtype}; convert it to a list of floats or an array of floats",
        )
    if shape is not None and not _fits(found.shape, shape):
        raise ArgumentError(f"{name} must be an array{wanted}, got shape {list(found.shape)}")
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite, and is then judged as that
        return np.array(found, dtype=np.float64)


def finite_array(name: str, value: ArrayLike, shape: tuple[int | str, ...] | None = None) -> NDArray[np.float64]:
    """Return a new float64 array of finite numbers; arguments as in `real_array`.

    Raises:
        ArgumentError: as `real_array`, or an entry is NaN or infinite.
    """
    found = real_array(name, value, shape)
    if not (finite := np.isfinite(found)).all():
        place = [int(i) for i in np.argwhere(~finite)[0]]
        raise ArgumentError(
            f"{name} must hold finite numbers only, got {found[tuple(place)]} at {name}{place if place else ''}; "
            "check what it was calculated from"
        )
    return found


def _fits(found: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(found) == len(wanted) and all(
        have > 0 if isinstance(want, str) else have == want for have, want in zip(found, wanted, strict=True)
    )
