"""`python -m feedalign`: the same as the command `feedalign`."""

import sys

from feedalign.cli import main

sys.exit(main())
