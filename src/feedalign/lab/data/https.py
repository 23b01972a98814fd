"""Download one file over https."""

from __future__ import annotations

import time
from pathlib import Path

import requests
import urllib3

from feedalign.errors import DataError
from feedalign.lab.data.meter import Meter

# Seconds to connect and to wait for the next bytes: a machine without network must get on to the next source soon.
_TIMEOUT = (5, 30)


def download(url: str, path: Path, show: bool, seconds: float) -> None:
    """Download `url` to the file `path`, with progress on stderr if `show`.

    Raises:
        DataError: the server cannot be reached, refuses, stops half-way, or is not done after so many `seconds`.
        OSError: `path` cannot be written.
    """
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
