"""Configs as TOML files: the table [train], and for sweeps the table [grid]."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from feedalign.checks import shown
from feedalign.errors import ArgumentError
from feedalign.lab.options import TrainConfig
from feedalign.lab.own_training.checking import check_value, purpose

KEYS = tuple(field.name for field in fields(TrainConfig))
# Words that users of other programs try, and that look like no key.
OTHER_WORDS = {"learning_rate": "lr", "model": "network", "data": "dataset", "layers": "hidden", "widths": "hidden"}


def config_of(file: Path) -> TrainConfig:
    """Return the config that the table [train] of a file asks for; what the file leaves out is as by default.

    Raises:
        ArgumentError: the file cannot be read, is no TOML, or holds something unknown; says where and what.
    """
    tables = tables_of(file, ("train",))
    return TrainConfig(**checked_table(file, "train", tables["train"]))


def tables_of(file: Path, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the tables of a file by name; one that the file does not have is empty.

    Args:
        file: a TOML file.
        names: of the tables that there can be.

    Raises:
        ArgumentError: the file cannot be read, is no TOML, or holds anything but these tables.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"cannot read {file} ({error.strerror}); give the name of a TOML file") from error
    except ValueError as error:  # of tomllib, and of bytes that are no text
        raise ArgumentError(f"{file} is no TOML file: {error}") from error
    for name, value in content.items():
        if name == "grid" and name not in names:
            raise ArgumentError(f"{file}: there is a table [grid]: a grid is for `feedalign sweep`")
        if name in KEYS and not isinstance(value, dict):
            raise ArgumentError(f"{file}: {name} stands outside of a table; write [train] above it")
        if name not in names or not isinstance(value, dict):
            expected = " and ".join(f"[{each}]" for each in names)
            raise ArgumentError(f"{file}: {name!r} is unknown{near(name, names)}; expected the table {expected}")
    return {name: content.get(name, {}) for name in names}


def checked_table(file: Path, table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a table, checked one by one.

    Raises:
        ArgumentError: a key is unknown, or a value has the wrong type or is out of range; says where.
    """
    checked = {}
    for name, value in values.items():
        check_key(file, table, name)
        try:
            checked[name] = check_value(name, value)
        except ArgumentError as error:
            raise ArgumentError(f"{file}, [{table}]: {error}") from error
    return checked


def check_key(file: Path, table: str, name: str) -> None:
    """Raise ArgumentError unless a config has a field of this name; the message has the nearest name."""
    if name not in KEYS:
        raise ArgumentError(
            f"{file}, [{table}]: {shown(name)} is unknown{near(name, KEYS)}; known are {', '.join(KEYS)}"
        )


def near(name: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to a name; nothing if none is near."""
    words = {word: word for word in known}
    words |= {word: key for word, key in OTHER_WORDS.items() if key in words}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), words, n=1, cutoff=0.6)
    return f" (did you mean {words[found[0]]}?)" if found else ""


def written(config: TrainConfig) -> str:
    """Return a resolved config as a TOML file, from which `feedalign train` repeats the run.

    What the config does not use is left out.
    """
    used = [name for name in KEYS if name != "seed" and purpose(config, name) is None]
    values = {name: getattr(config, name) for name in used}
    lines = [f"{name} = {_value(value)}" for name, value in values.items() if value is not None]
    return "\n".join(["[train]", *lines]) + "\n"


def _value(value: Any) -> str:
    """Return text, a number, a truth value or a list of them as TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)  # printable text, numbers and truth values are the same in both
