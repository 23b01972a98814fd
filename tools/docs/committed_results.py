"""Markdown extension: verdicts, numbers and figures of the folder `results/` stand in the pages, so none can go stale.

A page asks for them with a comment on a line of its own:

    <!-- results: two-phases -->    claim, figure, table of verdicts and command of results/two-phases.json
    <!-- results -->                one line for each result that there is
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

RESULTS = Path(__file__).parents[2] / "results"
FIGURES = "../figures/results"  # where `prepare` copies them, as seen from a page in a folder of docs/
_ASKED = re.compile(r"^<!-- results(?:: (?P<name>[\w-]+))? -->$")
_HEAD = ("Part of the claim", "The code expects", "This run found (95 % interval)", "Independent runs", "Verdict")


class ResultsExtension(Extension):
    """Replace the comments before Markdown reads the page."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Markdown's own name)
        """Register the first step of a page; comments are HTML, which Markdown's own first steps would hide."""
        md.preprocessors.register(_Comments(md), "committed-results", 100)


class _Comments(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        written: list[str] = []
        for line in lines:
            found = _ASKED.match(line)
            if found is None:
                written.append(line)
            else:
                text = overview(results()) if found["name"] is None else details(found["name"])
                written += text.splitlines()
        return written


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return every committed result by the name of its file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def details(name: str, folder: Path = RESULTS) -> str:
    """Return claim, figure, verdicts and command of one result, as Markdown.

    Raises:
        ValueError: there is no such result.
    """
    every = results(folder)
    if name not in every:
        raise ValueError(f"a page asks for the result {name!r}; results/ has {', '.join(every)}")
    found = every[name]
    told = [
        f"**Claim.** {found['claim']}",
        f"![Figure of the experiment {name}]({FIGURES}/{name}.svg)",
        f"*{found['caption']}*",
        table(found["parts"]),
        f"This run took {found['seconds']:.0f} seconds. Its config has the hash `{found['config_hash']}`. "
        "To run it yourself:",
        f"```sh\n{found['command']}\n```",
    ]
    return "\n\n".join(told)


def table(parts: list[dict[str, Any]]) -> str:
    """Return the table of the verdicts on all parts of a claim; counts of base seeds only where there are some."""
    seeds = any(part["other_base_seeds"] for part in parts)
    head = (*_HEAD, *(["At other base seeds"] if seeds else []))
    rows = [head, ("---",) * len(head)]
    for part in parts:
        row = (part["claim"], expected(part), effect(part), str(part["runs"]), marked(part["verdict"]))
        rows.append((*row, *([count(part["other_base_seeds"])] if seeds else [])))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def expected(part: dict[str, Any]) -> str:
    """Return the threshold in words."""
    return f"{part['side']} {part['threshold']:.3g}"


def effect(part: dict[str, Any]) -> str:
    """Return the effect with its interval; a number that is missing is a dash."""
    low, high = part["interval"]
    return f"{shown(part['effect'])} ({shown(low)} to {shown(high)})"


def shown(number: float | None) -> str:
    """Return a number with three digits."""
    return "–" if number is None else f"{number:.3g}".replace("-", "−")


def marked(verdict: str) -> str:
    """Return a verdict that a style sheet can colour."""
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def count(seeds: dict[str, int] | None) -> str:
    """Return at how many other base seeds a part is supported."""
    return "" if seeds is None else f"supported in {seeds['supported']} of {seeds['seeds']}"


def overview(every: dict[str, dict[str, Any]]) -> str:
    """Return the table of all results: what each claims, and how many parts of its claim are supported."""
    rows = ["| Experiment | Claim | Parts supported |", "|---|---|---|"]
    for name, found in every.items():
        words = [part["verdict"] for part in found["parts"]]
        share = f"{words.count('supported')} of {len(words)}"
        rows.append(f"| [{name}]({found['experiment']}.md) | {found['claim']} | {share} |")
    return "\n".join(rows)


def makeExtension(**settings: Any) -> ResultsExtension:  # noqa: N802 (Markdown's own name)
    """Return the extension, for Markdown."""
    return ResultsExtension(**settings)
