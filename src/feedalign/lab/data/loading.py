"""Load a data set by its name."""

from __future__ import annotations

from pathlib import Path

from feedalign.errors import ArgumentError
from feedalign.lab.data.digits import digits
from feedalign.lab.data.image_data import ImageData
from feedalign.lab.data.stored import STORED
from feedalign.lab.files import data_folder

NAMES = ("digits", *STORED)


def load(name: str, folder: str | Path | None = None) -> ImageData:
    """Return a data set; the digests of fetched ones are checked each time.

    Args:
        name: one of `NAMES`.
        folder: where `fetch` put it; None is `feedalign.lab.files.data_folder()`.

    Raises:
        ArgumentError: no data set has this name.
        DataError: it was not fetched yet, or its files are truncated or altered.
    """
    if name not in NAMES:
        raise ArgumentError(f"unknown data set {name!r}; expected one of {', '.join(NAMES)}")
    if name == "digits":
        return digits()
    return STORED[name].load(data_folder() if folder is None else Path(folder))
