"""The page of the documentation that shows the results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

INTRODUCTION = """\
# Models that were tried

`make compatibility` wraps small, randomly initialised models of other libraries in the rules. In float64 and in
training mode, the command compares the gradient of every parameter with the slow reference
([`check_rule`](choose-a-rule.md#is-it-the-rule)). Then the command trains each model for one step in float32, and
writes this page.

* **A number** says that all gradients are those of the reference. The number is the worst error, relative to the
  largest entry of a gradient. An error below 1e-6 passes: many models compute parts of themselves in float32, whatever
  their own precision is, and rounding to float32 leaves some 1e-7. Learned matrices are compared as well.
* **refused** says that feedalign has refused the model in words. The words stand below the table.
* **failed** says that something else happened. The words stand below the table.
* **not tried** says that the package could not be installed.

The points of the direct rules are the blocks of a model. The sequential rules take `points="auto"`, all linear layers.
Where a model has an encoder and a decoder, or returns an image, the direct rules are given `batch_dims=1`.
"""


def page(results: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    versions = ", ".join(f"{name} {version or '(not installed)'}" for name, version in results["versions"].items())
    models, frameworks = results["models"], results["frameworks"]
    cells = [one["kind"] for row in [*models, *frameworks] for one in row["rules"].values()]
    counts = ", ".join(f"{cells.count(kind)} {kind}" for kind in ("equal", "refused", "failed", "not tried"))
    parts = [
        INTRODUCTION,
        f"Run on {results['date']} in {results['minutes']} minutes with {versions}. Of {len(cells)} cells: {counts}.\n",
        "## Models\n",
        *_table(models),
        "## Frameworks\n",
        *_table(frameworks),
    ]
    return "\n".join(parts)


def _table(rows: list[dict[str, Any]]) -> Iterable[str]:
    if not rows:
        return ["No row.\n"]
    rules = list(rows[0]["rules"])
    lines = [f"| package | model | {' | '.join(rules)} |", "|" + "---|" * (2 + len(rules))]
    for row in rows:
        cells = [_cell(row["rules"][rule]) for rule in rules]
        lines.append(f"| {row['package']} | {row['name']} | {' | '.join(cells)} |")
    return ["\n".join(lines) + "\n", *_reasons(rows)]


def _cell(one: dict[str, Any]) -> str:
    return f"{one['worst']:.0e}".replace("0e+00", "0") if one["kind"] == "equal" else one["kind"]


def _reasons(rows: list[dict[str, Any]]) -> Iterable[str]:
    """The words of every refusal and failure; rules that give the same words stand together."""
    for row in rows:
        said: dict[tuple[str, str], list[str]] = {}
        for rule, one in row["rules"].items():
            if one["words"]:
                said.setdefault((one["kind"], one["words"]), []).append(rule)
        for (kind, words), rules in said.items():
            shown = words.replace("\n", " ").replace("`", "'")
            yield f"* **{row['name']}**, {kind} by {', '.join(rules)}: `{shown}`\n"
