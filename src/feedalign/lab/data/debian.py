"""Take files from a Debian package: those of an installed one, or of one that apt downloads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.archives import tar_members
from feedalign.lab.data.client import run_client

_MAGIC, _HEADER = b"!<arch>\n", 60


def package_files(
    package: str, folder: Path, names: Iterable[str], scratch: Path, show: bool, seconds: float
) -> dict[str, bytes]:
    """Return files that a package puts into a folder; nothing is installed, and no script of the package is run.

    Args:
        package: name of the package.
        folder: where the package puts the files, from the root of the file system.
        names: of the files.
        scratch: folder for temporary files.
        show: whether to show progress.
        seconds: how long the download may take.

    Raises:
        DataError: the package is not installed and cannot be downloaded with apt, or lacks a file.
        OSError: the disk is full.
    """
    wanted = list(names)
    if all((folder / name).is_file() for name in wanted):
        try:
            return {name: (folder / name).read_bytes() for name in wanted}
        except OSError as error:
            raise DataError(f"cannot read {folder}: {error}") from error
    said = run_client(["apt-get", "download", package, "-qq"], scratch, show, seconds)
    found = next(scratch.glob(f"{package}_*.deb"), None)
    if found is None:
        raise DataError(said)
    inside = scratch / "data.tar"
    inside.write_bytes(_data_part(found))
    places = {f".{folder / name}": name for name in wanted}
    return {places[place]: content for place, content in tar_members(inside, places).items()}


def _data_part(package: Path) -> bytes:
    """Return the tar file, compressed, with what a package installs: one member of an ar archive."""
    content = package.read_bytes()
    at = len(_MAGIC)
    while content.startswith(_MAGIC) and at + _HEADER <= len(content):
        header = content[at : at + _HEADER]
        size = header[48:58].strip()
        if not size.isdigit():
            break
        begin, at = at + _HEADER, at + _HEADER + int(size) + int(size) % 2
        if header.startswith(b"data.tar"):
            return content[begin : begin + int(size)]
    raise DataError(f"{package.name} is not a Debian package, or a truncated one")
