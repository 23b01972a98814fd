"""The command line as `python -m feedalign.cli`."""

import sys

from feedalign.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
