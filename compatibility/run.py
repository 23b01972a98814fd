"""Run the suite, print what comes of it, and write results.json and docs/how-to/compatibility-models.md.

Run: make compatibility
Or, for the models whose names hold one of some texts, without writing: python -m compatibility.run Bert Swin
"""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compatibility.checking import RULES, Outcome, outcome
from compatibility.packages import imported, version_of
from compatibility.page import page

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "compatibility-models.md"
# Module of the suite, and the package that its models come from.
CATALOGUES = {
    "compatibility.text_models": "transformers",
    "compatibility.picture_models": "transformers",
    "compatibility.torchvision_models": "torchvision",
    "compatibility.timm_models": "timm",
    "compatibility.peft_models": "peft",
}
PACKAGES = ("torch", "transformers", "torchvision", "timm", "peft", "lightning", "accelerate")


def models(wanted: list[str]) -> list[dict[str, Any]]:
    """Return a row for each model, with an outcome for each rule; packages that are missing give one row each."""
    rows: list[dict[str, Any]] = []
    for module, package in CATALOGUES.items():
        if version_of(package) is None:
            rows.append(row(package, f"all models of {package}", {rule: Outcome("not tried") for rule in RULES}))
            continue
        for case in imported(module).CASES:
            if not wanted or any(text in case.name for text in wanted):
                with contextlib.suppress(Exception):  # an error comes up again, and is told, in the process of the case
                    case.make()  # imports what the model needs, once for all rules
                outcomes = {rule: told(case.name, rule, outcome(case, rule)) for rule in RULES}
                rows.append(row(package, case.name, outcomes))
    return rows


def frameworks() -> list[dict[str, Any]]:
    """Return a row for each framework."""
    found = imported("compatibility.frameworks").outcomes()
    return [
        row(package, name, {rule: told(name, rule, one) for rule, one in of.items()}) for package, name, of in found
    ]


def row(package: str, name: str, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Return one row as JSON takes it."""
    return {"package": package, "name": name, "rules": {rule: asdict(one) for rule, one in outcomes.items()}}


def told(name: str, rule: str, one: Outcome) -> Outcome:
    """Print an outcome and return it."""
    said = f"worst error {one.worst:.1e}" if one.kind == "equal" else one.words
    print(f"{name}, {rule}: {one.kind} ({one.seconds:.1f} s) {said}", flush=True)
    return one


def main(wanted: list[str]) -> int:
    """Run the suite; return 1 if anything failed."""
    warnings.simplefilter("ignore")  # those of other packages
    start = time.monotonic()
    rows, steps = models(wanted), [] if wanted else frameworks()
    results = {
        "date": datetime.date.today().isoformat(),
        "versions": {"Python": platform.python_version()} | {name: version_of(name) for name in PACKAGES},
        "minutes": round((time.monotonic() - start) / 60, 1),
        "models": rows,
        "frameworks": steps,
    }
    if not wanted:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(results), encoding="utf-8")
    failed = [
        f"{each['name']}, {rule}: {one['words']}"
        for each in [*rows, *steps]
        for rule, one in each["rules"].items()
        if one["kind"] == "failed"
    ]
    print(f"{len(rows)} models in {results['minutes']} minutes, {len(failed)} failures", *failed, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
