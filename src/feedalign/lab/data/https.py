"""Download one file over https."""

from __future__ import annotations

from pathlib import Path

import pooch
import requests

from feedalign.errors import DataError
from feedalign.lab.data.meter import Meter

# Seconds to connect and to wait for the next bytes: a machine without network must get on to the next source soon.
_TIMEOUT = (5, 30)


def download(url: str, path: Path, show: bool) -> None:
    """Download `url` to the file `path`, with progress on stderr if `show`.

    Raises:
        DataError: the server cannot be reached, refuses, or stops half-way.
        OSError: `path` cannot be written.
    """
    with Meter(url, show) as meter:
        try:
            pooch.HTTPDownloader(progressbar=meter, chunk_size=2**16, timeout=_TIMEOUT)(url, path, None)
        except requests.RequestException as error:
            raise DataError(str(error)) from error
