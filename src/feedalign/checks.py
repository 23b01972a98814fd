"""Argument checks for the whole house: each function returns its argument as plain Python or numpy, or refuses it.

Every refusal is an `ArgumentError` that says which argument, what was expected, what was got, and what to do. A bool is
never a number here, and neither is text, a `Decimal`, a complex number or a `Tensor`. NaN and infinity are numbers
only where a function says so.

Everywhere `name` is the name of the argument, for the message, and `value` is what the user gave. `advice` says what to
do instead, for the end of the message; unless given, a sentence that fits what was got stands there.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import numbers
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedalign.errors import ArgumentError

Array = NDArray[np.float64]
Kind = TypeVar("Kind")

INT64 = np.iinfo(np.int64)
MOST_ENTRIES = 10**7  # of a range, which takes 0.4 GB as a list

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120


def shown(value: object) -> str:
    """Return a value as an error message shows it: on one line, short, and never itself an error."""
    try:
        return " ".join(_short.repr(value).split())
    except Exception:  # a user's __repr__ may raise anything; Python's own refuses integers of 4300 digits
        return f"an object of type {type(value).__name__}"


def refused(name: str, expected: str, value: object, advice: str = "") -> ArgumentError:
    """Return the error "`name` must be `expected`, got `value`; `advice`" for the caller to raise."""
    return ArgumentError(f"{name} must be {expected}, got {shown(value)}{f'; {advice}' if advice else ''}")


def finite_number(name: str, value: object) -> float:
    """Return a finite real number, of Python or numpy or in an array without axes, as a float."""
    return _number(name, value, "a finite number", math.isfinite, "")


def positive_number(name: str, value: object, *, advice: str = "") -> float:
    """Return a finite number above 0 as a float."""
    return _number(name, value, "a finite number above 0", lambda number: number > 0, advice)


def number_at_least(name: str, value: object, least: float, *, advice: str = "") -> float:
    """Return a finite number that is `least` or more as a float."""
    return _number(name, value, f"a finite number of at least {least:g}", lambda number: number >= least, advice)


def number_between(name: str, value: object, low: float, high: float, *, ends: str = "[]", advice: str = "") -> float:
    """Return a number from `low` to `high` as a float.

    `ends` says which ends belong to the interval: "[]" both, "[)" the lower, "(]" the upper, "()" none.
    """

    def inside(number: float) -> bool:
        above = number >= low if ends[0] == "[" else number > low
        return above and (number <= high if ends[1] == "]" else number < high)

    return _number(name, value, f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}", inside, advice)


def whole_number(
    name: str, value: object, at_least: int | None = None, at_most: int | None = None, *, advice: str = ""
) -> int:
    """Return a whole number as an int; a float without a fraction, such as 1e3, is one.

    Limits that are not given are those of 64-bit integers.
    """
    expected = "a whole number"
    if at_least is not None:
        expected += f" of at least {at_least}"
    if at_most is not None:
        expected += f"{' and' if at_least is not None else ' of'} at most {at_most}"
    number = _whole(value)
    if number is not None:
        if not INT64.min <= number <= INT64.max:
            raise refused(name, f"{expected} within 64 bits", value, advice)
        if (at_least is None or number >= at_least) and (at_most is None or number <= at_most):
            return number
    raise refused(name, expected, value, advice or _way_out(value))


def whole_numbers(name: str, value: object, at_least: int | None = None, *, length: int | None = None) -> list[int]:
    """Return a sequence of whole numbers, for example sizes or seeds, as a list of ints; see `sequence`."""
    return [
        whole_number(f"{name}[{i}]", entry, at_least)
        for i, entry in enumerate(sequence(name, value, "whole numbers", length=length))
    ]


def sequence(name: str, value: Any, of: str, *, length: int | None = None) -> list[Any]:
    """Return the entries of a sequence as a list; whoever calls checks the entries.

    Args:
        name: of the argument.
        value: a list, a tuple, a range or a numpy array, which is cut along its first axis. Text, iterators and endless
            ranges are refused.
        of: what the entries are, in the plural, for the message.
        length: how many entries there must be; any number of them, also none, unless given.
    """
    count = "" if length is None else f"{length} "
    ordered = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if not ordered or isinstance(value, str | bytes | bytearray | memoryview):
        advice = "make a list of it with list(...)" if isinstance(value, Iterable) else f"give a list of {of}"
        raise refused(name, f"a sequence of {count}{of}", value, advice)
    if isinstance(value, range) and value[MOST_ENTRIES:]:  # anything else is in memory already
        raise refused(name, f"a sequence of at most {MOST_ENTRIES:,} {of}", value)
    entries = list(value)
    if length is not None and len(entries) != length:
        raise ArgumentError(f"{name} must have {count}{of}, got {len(entries)}: {shown(value)}")
    return entries


def names_in(name: str, value: Any, most: int) -> tuple[str, ...]:
    """Return names of modules, in anything that can be iterated, as a tuple.

    There can be `most` different names. Only one more is read, since an iterator may be endless.
    """
    try:
        names = tuple(itertools.islice(value, most + 1))
    except TypeError as error:
        raise refused(name, "names of modules", value, 'give a list of names, such as ["0", "2"]') from error
    for each in names:
        if not isinstance(each, str):
            raise refused(name, "names of modules", value, f"{shown(each)} among them is no name")
    return names


def flag(name: str, value: object) -> bool:
    """Return True or False, of Python or numpy; 0, 1, None and text are refused."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise refused(name, "True or False", value, "use bool(...) if its truth is meant")


def one_of(name: str, value: object, choices: Iterable[str]) -> str:
    """Return one of a few words."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return str(value)
    raise ArgumentError(f"{name}={shown(value)} is unknown; expected one of {', '.join(known)}")


def instance_of(name: str, value: object, kind: type[Kind], advice: str = "") -> Kind:
    """Return an object of a given class, unchanged."""
    if isinstance(value, kind):
        return value
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    raise refused(name, f"{article} {kind.__name__}", value, advice)


def random_generator(name: str, value: object) -> np.random.Generator:
    """Return numpy's generator of random numbers, unchanged; anything else, such as a seed, is refused."""
    return instance_of(name, value, np.random.Generator, "make one with numpy.random.default_rng(seed)")


def real_array(name: str, value: ArrayLike, shape: tuple[int | str, ...] | None = None) -> Array:
    """Return a new float64 array of real numbers, NaN and infinity allowed.

    Args:
        name: of the argument.
        value: anything that numpy makes an array of integers or floats of. Bools, text, complex numbers, objects and
            masked entries are refused.
        shape: what the shape must be: a number for an axis of that size, a letter such as "K" for an axis of any size
            above 0. Any shape unless given, also an empty one.
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


def finite_array(name: str, value: ArrayLike, shape: tuple[int | str, ...] | None = None) -> Array:
    """Return a new float64 array of finite numbers; see `real_array`."""
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


def _number(name: str, value: object, expected: str, fits: Callable[[float], bool], advice: str) -> float:
    with contextlib.suppress(TypeError, OverflowError):  # None, and an integer that no float can hold
        number = float(_real(value))
        if math.isfinite(number) and fits(number):
            return number
    raise refused(name, expected, value, advice or _way_out(value))


def _real(value: Any) -> Any:
    """Return the real number that a value is, or None."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    # numpy registers its integers and floats as numbers.Real, and takes a span of time for an integer.
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, numbers.Real):
        return None
    return value


def _whole(value: object) -> int | None:
    """Return the whole number that a value is, or None."""
    real = _real(value)
    try:
        number = math.floor(real)
    except (OverflowError, ValueError, TypeError):  # infinity, NaN and None
        return None
    return int(number) if number == real else None


def _way_out(value: object) -> str:
    """Return what to do about a value that is no number, or a number that is not finite."""
    if isinstance(value, bool | np.bool_):
        return "write 0 or 1 if a number is meant"
    if (real := _real(value)) is not None:
        return "" if abs(real) < math.inf else "check what it was calculated from"
    return "convert it to a Python number, for example with float(...)"
