"""Download one package with the npm client."""

from __future__ import annotations

from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.client import run_client


def pack(package: str, scratch: Path, show: bool, seconds: float) -> Path:
    """Return the archive of `package` ("name@version"), downloaded to the folder `scratch`.

    Nothing is installed and no script of the package is run. npm's cache and logs go there as well, so that no
    second copy of the data outlives the fetch.

    Raises:
        DataError: there is no npm, it takes longer than `seconds`, or it fails; with the first lines of what it said.
        OSError: the disk is full.
    """
    options = [f"--cache={scratch / 'cache'}", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    said = run_client(["npm", "pack", package, *options], scratch, show, seconds)
    archive = scratch / f"{package.replace('@', '-')}.tgz"
    if not archive.is_file():
        raise DataError(said)
    return archive
