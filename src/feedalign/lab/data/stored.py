"""How a data set lies on disk: four files of raw bytes, each with its digest, checked whenever it is read."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feedalign.errors import DataError
from feedalign.lab.data.image_data import ImageData
from feedalign.lab.files import data_folder

Contents = dict[str, bytes]
"""The bytes of every stored file, by its name; what a source delivers."""


@dataclass(frozen=True)
class StoredFile:
    """One array of uint8 on disk: its bytes in row-major order, after a header if the format has one.

    Attributes:
        name: file name.
        shape: shape of the array; the bytes before it are the header, which the digest already vouches for.
        digest: digest of the whole file, "algorithm:hex"; empty where none is published. The file then gets one when it
            is written, in a file beside it.
    """

    name: str
    shape: tuple[int, ...]
    digest: str = ""

    def check(self, content: bytes | memoryview, origin: str) -> None:
        """Raise a DataError that names the file and where it came from, unless its content is the expected one.

        Expected is the published digest. Where there is none, the source has compared digests, and the size is left.
        """
        if self.digest:
            check_digest(f"{self.name} from {origin}", content, self.digest)
        elif len(content) != math.prod(self.shape):
            raise DataError(
                f"{self.name} from {origin} has {len(content):,} bytes, expected {math.prod(self.shape):,}; it was "
                "truncated or altered"
            )

    def write(self, folder: Path, content: bytes) -> None:
        """Write the file, and its digest beside it unless that is published."""
        (folder / self.name).write_bytes(content)
        if not self.digest:
            self._beside(folder).write_text(hashlib.sha256(content).hexdigest())

    def _beside(self, folder: Path) -> Path:
        return folder / f"{self.name}.sha256"

    def read(self, folder: Path) -> Tensor:
        """Return the array, uint8 in `shape`; a DataError if the file is not there or not what it was."""
        try:
            content = np.fromfile(folder / self.name, dtype=np.uint8)
            digest = self.digest or f"sha256:{self._beside(folder).read_text()}"
        except OSError as error:
            raise DataError(f"cannot read {folder / self.name}: {error.strerror}") from error
        check_digest(f"{self.name} from {folder}", content.data, digest)
        return torch.from_numpy(content[content.size - math.prod(self.shape) :]).reshape(self.shape)


@dataclass(frozen=True)
class StoredSet:
    """The four files of a data set, in a folder of its name."""

    name: str
    classes: int
    train_images: StoredFile
    train_labels: StoredFile
    test_images: StoredFile
    test_labels: StoredFile

    @property
    def files(self) -> tuple[StoredFile, StoredFile, StoredFile, StoredFile]:
        """The files in the order of ImageData's fields."""
        return self.train_images, self.train_labels, self.test_images, self.test_labels

    @property
    def size_bytes(self) -> int:
        """Room the four arrays take on disk, in bytes."""
        return sum(math.prod(file.shape) for file in self.files)

    def load(self, root: Path) -> ImageData:
        """Return the data set stored under `root`.

        Raises:
            DataError: it is missing, truncated or altered; the message says what to type.
        """
        command = f"feedalign data fetch {self.name}"
        if root != data_folder():
            command = f"FEEDALIGN_DATA={shlex.quote(str(root))} {command}"
        if not (root / self.name).is_dir():
            raise DataError(f"{self.name} is not in {root}; get it with: {command}")
        try:
            train_x, train_y, test_x, test_y = (file.read(root / self.name) for file in self.files)
        except DataError as error:
            raise DataError(f"{error}; repair it with: {command}") from error
        return ImageData(
            name=self.name,
            train_images=train_x,
            train_labels=train_y.long(),
            test_images=test_x,
            test_labels=test_y.long(),
            classes=self.classes,
        )

    def is_complete(self, root: Path) -> bool:
        """Whether all four files lie under `root` and have their digests."""
        try:
            self.load(root)
        except DataError:
            return False
        return True


def check_digest(what: str, content: bytes | memoryview, digest: str) -> None:
    """Raise a DataError that begins with `what`, unless the content has this digest, "algorithm:hex"."""
    algorithm, expected = digest.split(":", 1)
    got = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if got != expected:
        raise DataError(f"{what} is truncated or altered: its {algorithm} is {got}, expected {expected}")


def _digits_or_clothes(name: str, digests: Sequence[str]) -> StoredSet:
    """Return a set of the raw idx files that MNIST introduced."""
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    shapes = ((60_000, 1, 28, 28), (60_000,), (10_000, 1, 28, 28), (10_000,))
    return StoredSet(name, 10, *map(StoredFile, names, shapes, digests))


def _small_pictures(name: str, classes: int, digests: Sequence[str]) -> StoredSet:
    """Return a set of decoded pictures without a header, because the sources of CIFAR encode them differently."""
    names = [f"{part}.uint8" for part in ("train_images", "train_labels", "test_images", "test_labels")]
    shapes = ((50_000, 3, 32, 32), (50_000,), (10_000, 3, 32, 32), (10_000,))
    return StoredSet(name, classes, *map(StoredFile, names, shapes, digests))


# These digests are the same at every mirror.
MNIST = _digits_or_clothes(
    "mnist",
    (
        "md5:6bbc9ace898e44ae57da46a324031adb",
        "md5:a25bea736e30d166cdddb491f175f624",
        "md5:2646ac647ad5339dbf082846283269ea",
        "md5:27ae3e4e09519cfbb04c329615203637",
    ),
)
# The author publishes digests of the gzipped files, torchvision checks them, and Debian packages the files.
FASHION_MNIST = _digits_or_clothes(
    "fashion-mnist",
    (
        "md5:f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "md5:9018921c3c673c538a1fc5bad174d6f9",
        "md5:8181f5470baa50b63fa0f6fddb340f0a",
        "md5:15d484375f8d13e6eb1aabb0c3f46965",
    ),
)
# The digests are of the pixels and labels themselves. Those of the labels nobody had published: they are ours, taken
# from the npm package once its pixels had their digests and its labels the known first ten and 5000 or 1000 of each
# class.
CIFAR10 = _small_pictures(
    "cifar10",
    10,
    (
        "sha256:9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        "sha256:2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "sha256:177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        "sha256:cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ),
)
# Published are digests of the archives, not of pixels and labels. So what is fetched is compared with its published
# digest, and the decoded files get digests of their own then.
CIFAR100 = _small_pictures("cifar100", 100, ("", "", "", ""))

STORED = {stored.name: stored for stored in (MNIST, FASHION_MNIST, CIFAR10, CIFAR100)}
