"""The extras of feedalign: which packages each extra installs, and the error that names a missing extra.

`pip install feedalign` installs what rules and measures import. Theory, laboratory, cluster and the page of `feedalign
explore` import more packages, inside `needs`, so that a user who lacks a package reads what to install.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from feedalign.errors import MissingExtraError

_THEORY = frozenset({"numba", "scipy"})
_LAB = _THEORY | {
    "PIL",
    "filelock",
    "h5netcdf",
    "h5py",
    "jinja2",
    "matplotlib",
    "pooch",
    "requests",
    "rich",
    "safetensors",
    "sklearn",
    "threadpoolctl",
    "tyro",
    "xarray",
}
# Names as they are imported. pyproject.toml lists the same packages by the names pip knows; a test compares both.
PACKAGES = {"theory": _THEORY, "lab": _LAB, "cluster": _LAB | {"ray"}, "explore": _LAB | {"dash", "flask"}}


@contextmanager
def needs(extra: Literal["theory", "lab", "cluster", "explore"], wanted: str) -> Iterator[None]:
    """Name the extra to install when an import in the block fails because a package of this extra is missing.

    Blocks may be nested: the outermost block names its own extra, which holds the extras of the inner blocks. Every
    other failure passes unchanged: a missing package that no extra installs, or a package that is installed but broken.

    Args:
        extra: the extra that installs every package the block imports.
        wanted: what needs these packages, as the message names it; a module passes its `__name__`.

    Raises:
        MissingExtraError: a package of the extra is not installed.
    """
    try:
        yield
    except (ModuleNotFoundError, MissingExtraError) as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES[extra]:
            raise
        raise MissingExtraError(
            f"{wanted} needs the package {package}, which is not installed. Install it with the other packages of "
            f"the extra {extra!r}: pip install 'feedalign[{extra}]'",
            name=package,
        ) from error
