"""How long does feedalign take to start, in Python beside torch, and on the command line beside Python itself?

Each row is a program and the program it stands beside. All programs are started in turn, so that a drift of the machine
hits all of them alike; `more` is the median, over the rounds, of the difference within a round.

Run: python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from _timing import save

ROUNDS = 15
TORCH = ("-c", "import torch")
LIBRARY = ("-c", "import feedalign; feedalign.DFA")
NOTHING = ("-c", "pass")
COMMANDS = [("list",), ("--help",), ("reproduce", "--preset", "huge")]  # the last one is a usage error

# program, what it stands beside, how many seconds more were asked for
CASES = [(LIBRARY, TORCH, 0.4), *((("-m", "feedalign", *command), NOTHING, 0.5) for command in COMMANDS)]


def start(program: tuple[str, ...]) -> float:
    """Return the seconds of one start, from Python's own beginning to its end."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    expected = 2 if "huge" in program else 0
    if done.returncode != expected:
        raise RuntimeError(f"{program} ended with status {done.returncode}, expected {expected}: {done.stderr}")
    return seconds


def rounds(programs: list[tuple[str, ...]], count: int) -> dict[tuple[str, ...], list[float]]:
    """Return the seconds of every start by program; a first round, which fills the disk's cache, is left out."""
    taken: dict[tuple[str, ...], list[float]] = {program: [] for program in programs}
    for number in range(count + 1):
        for program in programs:
            seconds = start(program)
            if number:
                taken[program].append(seconds)
    return taken


def row(program: tuple[str, ...], beside: tuple[str, ...], asked: float, taken: Any) -> dict[str, Any]:
    more = [one - other for one, other in zip(taken[program], taken[beside], strict=True)]
    return {
        "program": f"python {' '.join(program)}",
        "seconds": round(statistics.median(taken[program]), 3),
        "lowest": round(min(taken[program]), 3),
        "beside": f"python {' '.join(beside)}",
        "beside_seconds": round(statistics.median(taken[beside]), 3),
        "beside_lowest": round(min(taken[beside]), 3),
        "more": round(statistics.median(more), 3),
        "more_of_the_lowest": round(min(taken[program]) - min(taken[beside]), 3),
        "asked": asked,
    }


if __name__ == "__main__":
    programs = list(dict.fromkeys(program for case in CASES for program in case[:2]))
    taken = rounds(programs, ROUNDS)
    save("import_time", [row(*case, taken) for case in CASES])
