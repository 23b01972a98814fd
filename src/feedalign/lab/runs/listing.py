"""What lies in a folder of runs: finished, unfinished and left over."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock

from feedalign.errors import ArgumentError
from feedalign.lab.runs.store import SCHEMA_VERSION, lock_file

Status = Literal["finished", "running", "interrupted", "stale", "newer", "damaged"]


@dataclass(frozen=True)
class Entry:
    """One run, as it lies on the disk.

    Attributes:
        kind: of run: an experiment, or a kind of job.
        hash: name of the run's folder.
        status: "finished"; "running", while some process holds the run's lock; "interrupted", where there are
            checkpoints or half-written files and nobody who goes on; "stale", made by an older version whose results
            are no longer read; "newer", made by a newer version; "damaged".
        paths: everything that belongs to the run.
        size: bytes.
        seconds: that the computation took; NaN unless finished.
        config: every field of the config; empty unless finished.
        environment: machine and versions it was made with; empty unless finished.
    """

    kind: str
    hash: str
    status: Status
    paths: tuple[Path, ...]
    size: int
    seconds: float
    config: dict[str, Any]
    environment: dict[str, Any]


def entries(root: Path) -> list[Entry]:
    """Return every run in a folder, sorted by kind and hash; a folder that is not there holds none."""
    found = []
    for kind in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        parts = defaultdict(list)
        for path in sorted(kind.iterdir()):
            parts[path.name.lstrip(".").partition(".")[0]].append(path)
        found += [_entry(kind / name, own) for name, own in sorted(parts.items())]
    return found


def show(root: Path, prefix: str) -> Entry:
    """Return the run whose hash begins with `prefix`.

    Raises:
        ArgumentError: no run's hash begins so, or several do.
    """
    matching = [entry for entry in entries(root) if entry.hash.startswith(prefix)]
    if not matching:
        raise ArgumentError(
            f"no run in {root} has a hash that begins with {prefix!r}; expected the beginning of a hash that "
            "`feedalign runs list` shows"
        )
    if len(matching) > 1:
        which = ", ".join(f"{entry.kind}/{entry.hash}" for entry in matching)
        raise ArgumentError(
            f"{len(matching)} runs in {root} begin with {prefix!r} ({which}); give more digits of the hash"
        )
    return matching[0]


def table(found: Iterable[Entry]) -> tuple[list[str], list[list[str]]]:
    """Return heading and rows of a table of runs."""
    heading = ["kind", "hash", "status", "size", "seconds"]
    rows = []
    for entry in found:
        seconds = f"{entry.seconds:.1f}" if entry.seconds >= 0 else "–"
        rows.append([entry.kind, entry.hash, entry.status, f"{entry.size / 1000:,.1f} kB", seconds])
    return heading, rows


def description(entry: Entry) -> list[str]:
    """Return lines that say what one run is, and with what it was made."""
    lines = [f"{entry.kind}/{entry.hash}: {entry.status}, {entry.size / 1000:,.1f} kB"]
    lines += [f"{path}" for path in entry.paths]
    lines += [f"  {name} = {value}" for name, value in entry.config.items()]
    return lines + [f"  {name}: {value}" for name, value in entry.environment.items()]


def clean(root: Path, *, everything: bool = False) -> Iterator[Entry]:
    """Remove what nobody will use: interrupted, stale and damaged runs; yield each when it is gone.

    With `everything`, finished runs are removed too. Runs that are being computed now are never removed.
    """
    removable = {"interrupted", "stale", "damaged"} | ({"finished"} if everything else set())
    for entry in entries(root):
        if entry.status in removable:
            for path in entry.paths:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            yield entry


def _entry(folder: Path, paths: list[Path]) -> Entry:
    seconds, config, made = float("nan"), dict[str, Any](), dict[str, Any]()
    status: Status = "running" if _held(lock_file(folder)) else "interrupted"
    if folder in paths:
        try:
            content = json.loads((folder / "config.json").read_text())
            config, schema = content["config"], content["schema_version"]
            made = json.loads((folder / "environment.json").read_text())
            seconds = float(made["seconds"])
            status = "finished" if schema == SCHEMA_VERSION else "stale" if schema < SCHEMA_VERSION else "newer"
        except (OSError, ValueError, KeyError, TypeError):
            status = "damaged"
    size = sum(path.stat().st_size for part in paths for path in [part, *part.rglob("*")] if path.is_file())
    return Entry(folder.parent.name, folder.name, status, tuple(paths), size, seconds, config, made)


def _held(lock: Path) -> bool:
    """Return whether some process holds a lock."""
    if not lock.exists():
        return False
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True
