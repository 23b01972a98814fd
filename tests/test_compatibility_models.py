"""The page of models that were tried is what the committed results say, and nothing in them has failed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from compatibility.install import requirements
from compatibility.page import page

ROOT = Path(__file__).parents[1]
RESULTS = json.loads((ROOT / "compatibility" / "results.json").read_text(encoding="utf-8"))


def test_the_page_shows_the_committed_results() -> None:
    assert (ROOT / "docs" / "how-to" / "compatibility-models.md").read_text(encoding="utf-8") == page(RESULTS)


def test_enough_models_of_each_kind_were_tried_and_none_failed() -> None:
    tried = [row for row in RESULTS["models"] if all(one["kind"] != "not tried" for one in row["rules"].values())]
    counts = Counter(row["package"] for row in tried)
    assert counts["transformers"] >= 25
    assert counts["torchvision"] + counts["timm"] >= 25
    for row in [*RESULTS["models"], *RESULTS["frameworks"]]:
        for rule, one in row["rules"].items():
            assert one["kind"] in ("equal", "refused", "not tried"), f"{row['name']} in {rule}: {one['words']}"
            assert one["kind"] != "equal" or one["worst"] < 1e-6
            assert one["kind"] != "refused" or "; " in one["words"]


def test_a_refusal_stands_below_the_table_in_its_words() -> None:
    refused = {"kind": "refused", "words": "give a; then b", "worst": 0.0, "seconds": 0.0}
    row = {"package": "timm", "name": "net", "rules": {"DFA": refused, "FA": refused}}
    text = page({**RESULTS, "models": [row], "frameworks": []})
    assert "| timm | net | refused | refused |" in text
    assert "* **net**, refused by DFA, FA: `give a; then b`" in text


def test_comments_are_no_requirements() -> None:
    assert requirements("# a\nb==1  # c\n\nd\n") == ["b==1", "d"]
