"""The command `feedalign`, also as `python -m feedalign`: it says what to install where the laboratory is missing."""

from __future__ import annotations

import sys

from feedalign.errors import MissingExtraError
from feedalign.extras import needs


def main() -> int:
    """Run the command line and return its exit status: 3 if a package of the extra `lab` is missing."""
    try:
        with needs("lab", "the command feedalign"):
            from feedalign import cli

            return cli.main()
    except MissingExtraError as error:
        print(f"feedalign: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
