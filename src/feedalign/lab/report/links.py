"""Where the report's links lead: files beside the report, the documentation, and tables inside the page itself."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from feedalign.lab.files import csv_text

# Of a checkout; an installed wheel holds no documentation.
_CHECKOUT = Path(__file__).parents[4]


def relative(target: Path, page: Path) -> str:
    """Return the address of a file as the page at `page` links to it: relative, so that both can move together."""
    path = Path(os.path.relpath(target.absolute(), page.absolute().parent))
    # The bytes of the name, which need not be characters: file systems allow any bytes.
    return quote(os.fsencode(path.as_posix()))


def documentation(experiment: str, page: Path, checkout: Path = _CHECKOUT) -> str | None:
    """Return the relative address of the documentation of an experiment, as the report at `page` links to it.

    The site that was built in the folder of the source code is preferred to the site's source text. None is returned
    where neither lies there.
    """
    for place in (f"site/results/{experiment}/index.html", f"docs/results/{experiment}.md"):
        if (checkout / place).is_file():
            return relative(checkout / place, page)
    return None


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a CSV file inside a link. The columns are the keys of the first row; there is at least one row."""
    text = csv_text(rows[0], (row.values() for row in rows))
    return embedded(text.encode("utf-8", errors="backslashreplace"), "text/csv;charset=utf-8")


def embedded(content: bytes, kind: str) -> str:
    """Return a whole file, of this media type, inside an address."""
    return f"data:{kind};base64," + base64.b64encode(content).decode()
