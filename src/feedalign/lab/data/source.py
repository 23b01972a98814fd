"""A place a data set can come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feedalign.lab.data.stored import Contents


@dataclass(frozen=True)
class Source:
    """One place a data set can come from.

    Attributes:
        kind: "https", "npm" or "folder"; what `fetch(source=...)` selects it by.
        place: the address, package or folder, for messages.
        scratch_bytes: the room its temporary files take, in bytes.
        deliver: return the bytes of all stored files, given an empty folder for temporary files and whether to show
            progress; raises a DataError with the reason if the place is out of reach or holds something else.
    """

    kind: str
    place: str
    scratch_bytes: int
    deliver: Callable[[Path, bool], Contents]
