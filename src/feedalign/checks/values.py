"""Checks of numbers, words, flags, sequences and objects."""

from __future__ import annotations

import itertools
import math
import numbers
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from feedalign.errors import ArgumentError

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


def finite_number(name: str, value: object, *, advice: str = "") -> float:
    """Return a finite real number as a float.

    Args:
        name: of the argument, for the message.
        value: what the user gave: a Python or numpy number, or a numpy array without axes.
        advice: what to do instead, for the end of the message. A sentence that fits what was got, unless given.

    Raises:
        ArgumentError: it is no real number, or NaN, infinite, or too large for a float.
    """
    return _number(name, value, "a finite number", math.isfinite, advice)


def positive_number(name: str, value: object, *, advice: str = "") -> float:
    """Return a finite number above 0 as a float; arguments and errors as in `finite_number`."""
    return _number(name, value, "a finite number above 0", lambda number: number > 0, advice)


def number_at_least(name: str, value: object, least: float, *, advice: str = "") -> float:
    """Return a finite number that is `least` or more as a float; arguments and errors as in `finite_number`."""
    return _number(name, value, f"a finite number of at least {least:g}", lambda number: number >= least, advice)


def number_between(name: str, value: object, low: float, high: float, *, ends: str = "[]", advice: str = "") -> float:
    """Return a number from `low` to `high` as a float.

    Args:
        name: see `finite_number`.
        value: see `finite_number`.
        low: lower end of the interval.
        high: upper end of the interval.
        ends: which ends belong to the interval: "[]" both, "[)" the lower, "(]" the upper, "()" none.
        advice: see `finite_number`.

    Raises:
        ArgumentError: it is no real number, or outside the interval.
    """

    def inside(number: float) -> bool:
        above = number >= low if ends[0] == "[" else number > low
        return above and (number <= high if ends[1] == "]" else number < high)

    return _number(name, value, f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}", inside, advice)


def whole_number(
    name: str, value: object, at_least: int | None = None, at_most: int | None = None, *, advice: str = ""
) -> int:
    """Return a whole number as an int; a float without a fraction, such as 1e3, is one.

    Args:
        name: see `finite_number`.
        value: see `finite_number`.
        at_least: smallest number that is allowed; the smallest 64-bit integer unless given.
        at_most: largest number that is allowed; the largest 64-bit integer unless given.
        advice: see `finite_number`.

    Raises:
        ArgumentError: it is no whole number, or outside these limits.
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
    """Return a sequence of whole numbers, for example sizes or seeds, as a list of ints.

    Args:
        name: see `finite_number`.
        value: a list, a tuple, a range or a numpy vector.
        at_least: smallest number that is allowed.
        length: how many numbers there must be; any number of them, also none, unless given.

    Raises:
        ArgumentError: it is no sequence, has another length, or an entry is no whole number of at least `at_least`.
    """
    return [
        whole_number(f"{name}[{i}]", entry, at_least)
        for i, entry in enumerate(sequence(name, value, "whole numbers", length=length))
    ]


def sequence(name: str, value: Any, of: str, *, length: int | None = None) -> list[Any]:
    """Return the entries of a sequence as a list; whoever calls checks the entries.

    Args:
        name: see `finite_number`.
        value: a list, a tuple, a range or a numpy array, which is cut along its first axis.
        of: what the entries are, in the plural, for the message.
        length: how many entries there must be; any number of them, also none, unless given.

    Raises:
        ArgumentError: it is text, an iterator or anything else without a length and an order; it is an endless range;
            or it has another length.
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
    """Return names of modules as a tuple.

    Args:
        name: see `finite_number`.
        value: names in a list, a set, an iterator or anything else that can be iterated.
        most: how many different names there can be. Only one more is read, since an iterator may be endless.

    Raises:
        ArgumentError: it cannot be iterated, or an entry is no name.
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
    """Return True or False; 0, 1, None and text are refused.

    Raises:
        ArgumentError: it is neither a Python nor a numpy bool.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise refused(name, "True or False", value, "use bool(...) if its truth is meant")


def one_of(name: str, value: object, choices: Iterable[str]) -> str:
    """Return one of a few words.

    Raises:
        ArgumentError: it is another word, or no word.
    """
    known = list(choices)
    if isinstance(value, str) and value in known:
        return str(value)
    raise ArgumentError(f"{name}={shown(value)} is unknown; expected one of {', '.join(known)}")


def instance_of(name: str, value: object, kind: type[Kind], advice: str = "") -> Kind:
    """Return an object of a given class, unchanged.

    Raises:
        ArgumentError: it is an object of another class.
    """
    if isinstance(value, kind):
        return value
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    raise refused(name, f"{article} {kind.__name__}", value, advice)


def random_generator(name: str, value: object) -> np.random.Generator:
    """Return numpy's generator of random numbers, unchanged.

    Raises:
        ArgumentError: it is anything else, for example a seed.
    """
    return instance_of(name, value, np.random.Generator, "make one with numpy.random.default_rng(seed)")


def _number(name: str, value: object, expected: str, fits: Callable[[float], bool], advice: str) -> float:
    real = _real(value)
    if real is not None:
        try:
            number = float(real)
        except OverflowError:
            number = math.inf
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
