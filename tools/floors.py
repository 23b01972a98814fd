"""Print the lowest versions that pyproject.toml allows, as constraints for pip: `make floors` tests with them.

Only what users install has a tested floor: the library and the extras of `EXTRAS`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

EXTRAS = ("theory", "lab", "cluster", "explore")


def floors(pyproject: str) -> list[str]:
    """Return `name==version` for every requirement `name>=version` of the library and of the extras.

    Raises:
        ValueError: a requirement names no lowest version, so there is nothing to test.
    """
    project = tomllib.loads(pyproject)["project"]
    requirements = [
        *project["dependencies"],
        *(each for extra in EXTRAS for each in project["optional-dependencies"][extra]),
    ]
    found = []
    for requirement in requirements:
        if requirement.startswith("feedalign["):
            continue
        name, _, version = requirement.partition(">=")
        if not version:
            raise ValueError(f"{requirement!r} in pyproject.toml names no lowest version; write name>=version")
        found.append(f"{name}=={version}")
    return found


if __name__ == "__main__":
    print(*floors((Path(__file__).parents[1] / "pyproject.toml").read_text()), sep="\n")
