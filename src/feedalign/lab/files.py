"""Where files live and how they are written: aside first, then renamed, so a path is complete or absent."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from feedalign.errors import ArgumentError


def data_folder() -> Path:
    """Folder of downloaded data sets: `$FEEDALIGN_DATA`, else the platform's cache folder."""
    import pooch  # only here: paths are checked before anything slow is loaded

    return Path(os.environ.get("FEEDALIGN_DATA") or pooch.os_cache("feedalign"))


def make_folder(path: Path) -> None:
    """Make a folder and the folders above it, one after the other: `Path.mkdir` calls itself once for each of them."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(exist_ok=True)  # another process may have made it in between


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write a file or build a folder at; it becomes `path` if the block succeeds.

    The temporary name lies in a fresh folder of the same parent, so the last step is a rename within one file system.
    An exception (Ctrl-C and a full disk included) leaves `path` as it was and removes what was half-written. An
    existing file is replaced; an existing folder is kept, what was built is dropped: the first writer wrote the same.
    """
    make_folder(path.parent)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield aside / path.name
        try:
            os.replace(aside / path.name, path)
        except OSError:
            if not (path.is_dir() and (aside / path.name).is_dir()):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def csv_text(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a CSV file with a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent at any time, as `replacing` does."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def check_file(name: str, path: Path) -> None:
    """Check that a file can be written at `path`, before work is spent on what goes into the file.

    Raises:
        ArgumentError: `path` is a folder or a device, lies below a file, or may not be written. The message begins with
            `name`.
    """
    if path.is_dir():
        raise ArgumentError(f"{name}={path} is a folder; give the name of a file, such as {path / 'report.html'}")
    if path.exists() and not path.is_file():  # the new file would take the place of /dev/null, for everybody
        raise ArgumentError(f"{name}={path} is a device or a pipe, not a file; give the name of a file")
    _check_parent(name, path, path.parent)


def check_folder(name: str, path: Path) -> None:
    """Check that files can be written into the folder `path`, which need not exist yet.

    Raises:
        ArgumentError: `path` or a folder above it is a file, or may not be written. The message begins with `name`.
    """
    _check_parent(name, path, path)


def _check_parent(name: str, path: Path, folder: Path) -> None:
    """Check the nearest existing place at or above `folder`: missing folders are made below it."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not there.is_dir():
        raise ArgumentError(f"{name}={path} cannot be written: {there} is a file, not a folder; give another {name}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ArgumentError(f"{name}={path} cannot be written: no permission to write in {there}; give another {name}")
