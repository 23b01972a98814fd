"""What do the examples reach that take too long for a page which is built again and again?

The scripts are examples/recurrent.py and examples/associative_recall.py, as they are. Both together take about five
minutes of one core. With the name of an example only this one is run, and the numbers of the other stay.

Run: python benchmarks/long_examples.py [name of an example ...]
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from _timing import RESULTS, save


def example(name: str) -> ModuleType:
    """Return a script as a module."""
    folder = str(Path(__file__).parents[1] / "examples")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def spread(found: list[float]) -> dict[str, float]:
    return {
        "accuracy": round(statistics.mean(found), 3),
        "lowest": round(min(found), 3),
        "highest": round(max(found), 3),
    }


def of_sequences() -> list[dict[str, Any]]:
    script = example("recurrent")
    rows = []
    for arm, make in script.ARMS.items():
        for delay in script.DELAYS:
            nets = [make(seed) for seed in script.SEEDS]
            row = {"example": "recurrent", "arm": arm, "delay": delay, **spread([script.train(n, delay) for n in nets])}
            if delay == script.DELAYS[-1] and arm in script.ALIGNED:
                by_seed = [script.alignment_over_delay(net, delay) for net in nets]
                means = [statistics.mean(places) for places in zip(*by_seed, strict=True)]
                row |= {f"cosine_{place}": round(means[place], 3) for place in script.PLACES}
            rows.append(row)
    return rows


def of_recall() -> list[dict[str, Any]]:
    script = example("associative_recall")
    rows = []
    for arm in script.arms(0):
        found = [script.trained(script.arms(seed)[arm], script.STEPS, seed) for seed in range(script.SEEDS)]
        rows.append({"example": "associative_recall", "arm": arm, "steps": script.STEPS, **spread(found)})
    return rows


EXAMPLES = {"recurrent": of_sequences, "associative_recall": of_recall}


def main(names: list[str]) -> None:
    path = RESULTS / "long_examples.json"
    known = json.loads(path.read_text()) if path.exists() else []
    rows = {name: [row for row in known if row["example"] == name] for name in EXAMPLES}
    for name in names or EXAMPLES:
        rows[name] = EXAMPLES[name]()
        save("long_examples", [row for of_example in rows.values() for row in of_example])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
