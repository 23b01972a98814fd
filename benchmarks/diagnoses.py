"""What does `feedalign diagnose` find on three data sets, with its defaults?

The numbers are those that the command prints: means over layers and outputs, at the end of 200 steps. MNIST has to be
fetched first (`feedalign data fetch mnist`).

Run: python benchmarks/diagnoses.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _timing import save

from feedalign.lab import diagnose_command
from feedalign.lab.diagnose_command import DiagnoseConfig

SUBJECTS = {
    "digits": DiagnoseConfig(),
    "mnist": DiagnoseConfig(dataset="mnist"),
    "digits, class 3 twenty times": DiagnoseConfig(repeat=("3=20",)),
}


def row(name: str, config: DiagnoseConfig) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as runs:
        found, _ = diagnose_command.compute(config, Path(runs))
    return {
        "subject": name,
        "condition_number": round(found.errors.spectrum.condition_number, 3),
        "expected": round(float(np.nanmean(found.expected["plain"].by_output)), 3),
        "expected_steps": round(found.expected["plain"].steps / found.expected["conditioned"].steps, 2),
        "dfa": round(float(np.nanmean(found.trained["dfa"].by_output)), 3),
        "conditioned_dfa": round(float(np.nanmean(found.trained["conditioned-dfa"].by_output)), 3),
        "speedup": round(found.speedup, 3),
    }


def main() -> None:
    save("diagnoses", [row(name, config) for name, config in SUBJECTS.items()])


if __name__ == "__main__":
    main()
