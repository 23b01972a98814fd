"""What the benchmarks share: interleaved timing, medians, and results written with their environment."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feedalign.lab.runs import environment

RESULTS = Path(__file__).parent / "results"


def interleaved(*functions: Callable[[], object], rounds: int, warm_up: int = 3) -> list[float]:
    """Return the median seconds of each function; they take turns, so a drift of the machine hits all alike."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + warm_up):
        for function, taken in zip(functions, seconds, strict=True):
            begin = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken[warm_up:]) for taken in seconds]


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows and write them, with what they were measured on, to results/."""
    RESULTS.mkdir(exist_ok=True)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    text = json.dumps(rows, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    (RESULTS / "environment.json").write_text(json.dumps(environment(), indent=2, sort_keys=True) + "\n")
