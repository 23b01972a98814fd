"""Write the README's table of results from the quick runs: `python tools/readme_results.py [RUNS]`.

Finished runs are read, the others are run. The table stands between two marks in README.md. Its last column comes from
results/seed_robustness.csv.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from feedalign import lab
from feedalign.lab.experiments import Verdict
from feedalign.lab.robustness import read

README = Path(__file__).parents[1] / "README.md"
TABLE = Path(__file__).parents[1] / "results" / "seed_robustness.csv"
BEGIN, END = "<!-- results: written by tools/readme_results.py -->", "<!-- end of results -->"


def row(name: str, verdict: Verdict, robust: str) -> str:
    """Return one line of the table; a bar inside a formula would end the cell."""
    low, high = verdict.interval
    claim = verdict.claim.replace("|", "\\|")
    asked = f"{'>' if verdict.side == 'above' else '<'} {verdict.threshold:.3g}"
    measured = f"{verdict.effect:.3g} ({low:.3g} to {high:.3g})"
    return f"| `{name}`: {claim} | {asked} | {measured} | {verdict.runs} | {verdict.word} | {robust} |"


def table(runs: Path) -> str:
    """Return the table of all verdicts of the quick preset."""
    with tempfile.TemporaryDirectory() as folder:
        done = lab.reproduce(runs=runs, report=Path(folder) / "report.html", table=TABLE)
    counts = {(each.config_hash, each.part): f"{each.supported} of {each.seeds}" for each in read(TABLE)}
    lines = [
        "| part of a claim | asked | measured (95 % interval) | runs | verdict | other base seeds |",
        "|" + "---|" * 6,
    ]
    for result in done.results:
        for part, verdict in enumerate(result.verdicts, start=1):
            lines.append(row(result.experiment.NAME, verdict, counts.get((result.run.config_hash, part), "")))
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the marks."""
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs")
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n{table(runs)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
