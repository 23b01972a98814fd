"""What a source of a data set is, and how files come here: over https, from npm or from Debian."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from feedalign.errors import DataError
from feedalign.lab.data.archives import debian_tar, tar_members
from feedalign.lab.data.meter import Meter
from feedalign.lab.data.stored import Contents

# A transfer may take this long, and as long again as its bytes take at this speed: a server that sends a byte every
# second would otherwise never end.
GRACE_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 20_000
# Seconds to connect and to wait for the next bytes: a machine without network must get on to the next source soon.
_TIMEOUT = (5, 30)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Source:
    """One place a data set can come from.

    Attributes:
        kind: "https", "npm", "debian" or "folder"; what `fetch(source=...)` selects it by.
        place: the address, package or folder, for messages.
        scratch_bytes: the room its temporary files take, in bytes.
        deliver: return the bytes of all stored files, given an empty folder for temporary files and whether to show
            progress; raises a DataError with the reason if the place is out of reach or holds something else.
    """

    kind: str
    place: str
    scratch_bytes: int
    deliver: Callable[[Path, bool], Contents]


def allowed_seconds(size_bytes: int) -> float:
    """Return how many seconds a transfer of this size may take."""
    return GRACE_SECONDS + size_bytes / SLOWEST_BYTES_PER_SECOND


def download(url: str, path: Path, show: bool, size_bytes: int) -> None:
    """Download `url` to the file `path`, with progress on stderr if `show`.

    Raises:
        DataError: the server cannot be reached, refuses, stops half-way, or takes longer than so many bytes may take.
        OSError: `path` cannot be written.
    """
    seconds = allowed_seconds(size_bytes)
    deadline = time.monotonic() + seconds
    with Meter(url, show) as meter:
        try:
            with requests.get(url, stream=True, timeout=_TIMEOUT) as response, path.open("wb") as file:
                response.raise_for_status()
                meter.total = int(response.headers.get("Content-Length", 0))
                # read1 gives what has arrived. Other ways to read wait for a whole block, and never look at the clock.
                while block := response.raw.read1(2**16):
                    file.write(block)
                    meter.update(len(block))
                    if time.monotonic() > deadline:
                        raise DataError(f"only {file.tell():,} bytes came in {seconds:.0f} seconds; the server is slow")
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise DataError(str(error)) from error


def npm_files(package: str, names: Iterable[str], scratch: Path, show: bool, size_bytes: int) -> dict[str, bytes]:
    """Return files of `package` ("name@version"), by their names in its archive, which npm downloads to `scratch`.

    Nothing is installed and no script of the package is run. npm's cache and logs go to `scratch` as well, so that no
    second copy of the data outlives the fetch.

    Raises:
        DataError: there is no npm, it fails (with the first lines of what it said), it takes longer than so many bytes
            may take, or the package lacks a file.
        OSError: the disk is full.
    """
    options = [f"--cache={scratch / 'cache'}", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    said = _run(["npm", "pack", package, *options], scratch, show, size_bytes)
    archive = scratch / f"{package.replace('@', '-')}.tgz"
    if not archive.is_file():
        raise DataError(said)
    return tar_members(archive, names)


def debian_files(
    package: str, folder: Path, names: Sequence[str], scratch: Path, show: bool, size_bytes: int
) -> dict[str, bytes]:
    """Return files that `package` puts into `folder`, a path from the root of the file system, by their names.

    If the package is not installed, apt downloads it to `scratch`. Nothing is installed and no script of the package is
    run.

    Raises:
        DataError: the package is not installed and cannot be downloaded with apt, or lacks a file.
        OSError: the disk is full.
    """
    if all((folder / name).is_file() for name in names):
        try:
            return {name: (folder / name).read_bytes() for name in names}
        except OSError as error:
            raise DataError(f"cannot read {folder}: {error}") from error
    said = _run(["apt-get", "download", package, "-qq"], scratch, show, size_bytes)
    found = next(scratch.glob(f"{package}_*.deb"), None)
    if found is None:
        raise DataError(said)
    inside = scratch / "data.tar"
    inside.write_bytes(debian_tar(found))
    places = {f".{folder / name}": name for name in names}
    return {places[place]: content for place, content in tar_members(inside, places).items()}


def _run(command: Sequence[str], scratch: Path, show: bool, size_bytes: int) -> str:
    """Run a program in the folder `scratch`; return the first lines of what it said, with its exit code.

    Raises:
        DataError: there is no such program, or it takes longer than so many bytes may take.
        OSError: the disk is full.
    """
    name, *arguments = command
    program = shutil.which(name)
    if program is None:
        raise DataError(f"{name} is not installed, or not on PATH")
    what, seconds = " ".join(command[:2]), allowed_seconds(size_bytes)
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
