"""Markdown extension: verdicts, numbers and figures of the folder `results/` stand in the pages, so none can go stale.

A page asks for them with a comment on a line of its own:

    <!-- results: two-phases -->    claim, figure, table of verdicts and command of results/two-phases.json
    <!-- paper: two-phases -->      the same of results/paper/two-phases.json, and what was reduced
    <!-- results -->                one line for each experiment
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
_ASKED = re.compile(r"^<!-- (?P<size>results|paper)(?:: (?P<name>[\w-]+))? -->$")
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
                written += _answer(found["size"], found["name"]).splitlines()
        return written


def _answer(size: str, name: str | None) -> str:
    """Return what a comment asks for, as Markdown."""
    if name is None:
        return overview(results())
    return details(name) if size == "results" else paper(name)


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return every committed result by the place of its file: "NAME", or "paper/NAME" for one of that preset."""
    paths = sorted([*folder.glob("*.json"), *folder.glob("paper/*.json")])
    return {
        path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in paths
    }


def details(name: str, folder: Path = RESULTS) -> str:
    """Return claim, figure, verdicts and command of one result, as Markdown.

    Raises:
        ValueError: there is no such result.
    """
    return "\n\n".join([f"**Claim.** {_result(name, folder)['claim']}", *_shown(name, folder)])


def paper(name: str, folder: Path = RESULTS) -> str:
    """Return what was reduced, figure, verdicts and command of one result of the paper preset, as Markdown.

    Raises:
        ValueError: there is no such result.
    """
    return "\n\n".join([reduced(_result(f"paper/{name}", folder)), *_shown(f"paper/{name}", folder)])


def reduced(found: dict[str, Any]) -> str:
    """Return in words how many parts a run supports, and how its config differs from its preset."""
    counted = f"At this size {_share(found)} parts of the claim are supported."
    if not found["changes"]:
        return f"This run has the preset *paper* as it is. {counted}"
    rows = ["| Field | Preset *paper* | This run |", "|---|---|---|"]
    for change in found["changes"]:
        rows.append(f"| `{change['field']}` | {json.dumps(change['preset'])} | {json.dumps(change['run'])} |")
    return (
        "The preset *paper* takes longer than one core had here, so this run is smaller. "
        f"{counted} What was changed:\n\n" + "\n".join(rows)
    )


def _result(name: str, folder: Path) -> dict[str, Any]:
    every = results(folder)
    if name not in every:
        raise ValueError(f"a page asks for the result {name!r}; results/ has {', '.join(every)}")
    return every[name]


def _shown(name: str, folder: Path) -> list[str]:
    """Return figure, caption, verdicts and command of one result."""
    found = _result(name, folder)
    return [
        f"![Figure of the experiment {name}]({FIGURES}/{name}.svg)",
        f"*{found['caption']}*",
        table(found["parts"]),
        f"This run took {found['seconds']:.0f} seconds. Its config has the hash `{found['config_hash']}`. "
        "To run it yourself:",
        "```sh\n" + found["command"].replace(" --set ", " \\\n  --set ") + "\n```",
    ]


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
    """Return the table of all experiments: what each claims, and how many parts are supported at which size."""
    rows = [
        "| Experiment | Claim | Parts supported, *quick* | Parts supported, *paper*, reduced |",
        "|---|---|---|---|",
    ]
    for name, found in every.items():
        if found["preset"] == "quick":
            large = every.get(f"paper/{name}")
            shares = f"{_share(found)} | {'–' if large is None else _share(large)}"
            rows.append(f"| [{name}]({found['experiment']}.md) | {found['claim']} | {shares} |")
    return "\n".join(rows)


def _share(found: dict[str, Any]) -> str:
    words = [part["verdict"] for part in found["parts"]]
    return f"{words.count('supported')} of {len(words)}"


def makeExtension(**settings: Any) -> ResultsExtension:  # noqa: N802 (Markdown's own name)
    """Return the extension, for Markdown."""
    return ResultsExtension(**settings)
