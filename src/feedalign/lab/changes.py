"""Change fields of a config by their names: what `feedalign reproduce --set NAME=VALUE` does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from feedalign.checks import flag, number_at_least, one_of, refused, sequence, shown, whole_number
from feedalign.errors import ArgumentError

Config = TypeVar("Config")

# Whole numbers count something, so they are at least 1. Of these fields 0 has a meaning, which their docstrings say.
MAY_BE_ZERO = ("image_size", "train_images", "first_seed")
MAY_BE_EMPTY = ("classes",)
NUMBER = "write a number, such as 5 or 1e-3"


@dataclass(frozen=True)
class Change:
    """One field of a config that is no longer what it was.

    Attributes:
        name: of the field; a dot leads to a field of a config inside the config, as in "net.epochs".
        before: the value that the field had.
        after: the value that the field has now.
    """

    name: str
    before: Any
    after: Any

    @property
    def words(self) -> str:
        """The change in words, "draws 8 instead of 40"."""
        return f"{self.name} {written(self.after)} instead of {written(self.before)}"

    @property
    def option(self) -> str:
        """What follows `--set` on the command line, "draws=8"."""
        return f"{self.name}={written(self.after)}"


def read_options(options: Sequence[str]) -> dict[str, Any]:
    """Return values by name from texts such as "draws=8", "norms=[2, 8]" or "rule=dfa".

    Args:
        options: each has a name, "=", and a value. A value that is no JSON is a word.

    Raises:
        ArgumentError: a text has no name or no value, or a name stands twice.
    """
    values: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        name, text = name.strip(), text.strip()
        if not (name and equals and text):
            raise ArgumentError(f"--set {shown(option)} is no change; write NAME=VALUE, such as --set draws=8")
        if name in values:
            raise ArgumentError(f"--set {name} is given twice; give one value")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def changed(config: Config, values: Mapping[str, Any]) -> tuple[Config, tuple[Change, ...]]:
    """Return a config with other values, and what has changed.

    Args:
        config: a frozen dataclass.
        values: by the name of a field. A list stands for a tuple.

    Raises:
        ArgumentError: a field is unknown or cannot be changed by name, a value has another type than the field or is
            out of range, or a value is the one that the config has already.
    """
    changes = []
    for name, value in values.items():
        config, change = _changed(config, name.split("."), name, value)
        changes.append(change)
    return config, tuple(changes)


def written(value: Any) -> str:
    """Return a value as `read_options` reads it: numbers, lists and truth values as JSON, a word as it is."""
    return value if isinstance(value, str) else json.dumps(value)


def _changed(config: Any, path: list[str], name: str, value: Any) -> tuple[Any, Change]:
    """Return a config with another value at the path, and what has changed; `name` is the whole path from the top."""
    field, *below = path
    known = [each.name for each in fields(config)]
    if field not in known:
        raise ArgumentError(f"{name} cannot be changed: {shown(field)} is unknown; known are {', '.join(known)}")
    before = getattr(config, field)
    if below:
        if not is_dataclass(before):
            raise ArgumentError(f"{name} cannot be changed: {field} has no fields of its own; write {field}=VALUE")
        after, change = _changed(before, below, name, value)
    else:
        after = _fitting(name, value, get_type_hints(type(config))[field])
        if after == before:
            raise ArgumentError(f"{name} is {written(before)} already; leave this change out, or give another value")
        change = Change(name, before, after)
    return replace(config, **{field: after}), change


def _fitting(name: str, value: Any, kind: Any) -> Any:
    """Return a value as the type of its field asks for: equal configs must have equal hashes, so 1 becomes 1.0."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType) and NoneType in inside and len(inside) == 2:
        return None if value is None else _fitting(name, value, next(each for each in inside if each is not NoneType))
    if origin is Literal:
        return one_of(name, value, inside)
    if origin is tuple:
        return _entries(name, value, inside)
    if kind is bool:
        return flag(name, value)
    if kind is int:
        return whole_number(name, value, 0 if name.split(".")[-1] in MAY_BE_ZERO else 1, advice=NUMBER)
    if kind is float:
        return number_at_least(name, value, 0, advice=NUMBER)
    if kind is str:
        if isinstance(value, str) and value.isprintable():
            return value
        raise refused(name, "a word", value)
    raise ArgumentError(f"{name} cannot be changed by a value: it holds objects; change it in a config from Python")


def _entries(name: str, value: Any, inside: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a sequence as a tuple whose entries have the types that the field asks for."""
    of_any_length = inside[1:] == (Ellipsis,)
    entries = sequence(name, value, "values", length=None if of_any_length else len(inside))
    if not entries and name not in MAY_BE_EMPTY:
        raise ArgumentError(f"{name}=[] leaves nothing to compute; give at least one value")
    kinds = (inside[0],) * len(entries) if of_any_length else inside
    return tuple(
        _fitting(f"{name}[{i}]", entry, kind) for i, (entry, kind) in enumerate(zip(entries, kinds, strict=True))
    )
