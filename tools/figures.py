"""Draw the documentation's figures of the experiments from the quick runs: `python tools/figures.py [RUNS]`.

Finished runs are read, the others are run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from feedalign import lab
from feedalign.style import svg

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


def main() -> None:
    """Write one SVG file for each experiment."""
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs")
    with tempfile.TemporaryDirectory() as folder:
        done = lab.reproduce(runs=runs, report=Path(folder) / "report.html")
    for result in done.results:
        figure = result.experiment.plot(result.run.dataset)
        (FIGURES / f"{result.experiment.NAME}.svg").write_bytes(svg(figure))


if __name__ == "__main__":
    main()
