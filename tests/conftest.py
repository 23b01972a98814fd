"""What every test shares."""

from __future__ import annotations

import os

# Two test workers share two cores; more threads each would only get in one another's way. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
