"""The command `feedalign`, also as `python -m feedalign`: it says what to install where the laboratory is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from feedalign.errors import MissingExtraError
from feedalign.extras import needs


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 3 if a package of the extra `lab` is missing."""
    try:
        with needs("lab", "the command feedalign"):
            for package in ("tyro", "rich"):  # found, but not loaded: until then, Ctrl-C would end in a traceback
                if find_spec(package) is None:
                    raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            from feedalign import cli

            return cli.main(args)
    except MissingExtraError as error:
        print(f"feedalign: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:  # while the command line was loaded: nothing has begun that could be told of
        print("feedalign: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
