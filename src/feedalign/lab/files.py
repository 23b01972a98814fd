"""Where files live and how they are written: aside first, then renamed, so a path is complete or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch


def data_folder() -> Path:
    """Folder of downloaded data sets: `$FEEDALIGN_DATA`, else the platform's cache folder."""
    return Path(os.environ.get("FEEDALIGN_DATA") or pooch.os_cache("feedalign"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write a file or build a folder at; it becomes `path` if the block succeeds.

    The temporary name lies in a fresh folder of the same parent, so the last step is a rename within one file system.
    An exception (Ctrl-C and a full disk included) leaves `path` as it was and removes what was half-written. An
    existing file is replaced; an existing folder is kept, what was built is dropped: the first writer wrote the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
