"""Whether this machine has the memory that somebody asks for."""

from __future__ import annotations

import os

from feedalign.errors import ArgumentError


def check_memory(what: str, numbers: int, advice: str) -> None:
    """Refuse float32 numbers that need more memory than this machine has; where its memory is unknown, do nothing.

    Linux hands out more memory than there is and ends the program, without a word, when the numbers are written. The
    message begins with what holds the numbers, and ends with advice on what to do instead.
    """
    if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= getattr(os, "sysconf_names", {}).keys():
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * numbers > memory:
        raise ArgumentError(
            f"{what} need {4 * numbers / 1e9:,.1f} GB, and this machine has {memory / 1e9:,.1f} GB; {advice}"
        )
