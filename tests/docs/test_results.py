"""The committed results: what the tool writes, and what the documentation shows of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from markdown import markdown
from tools import results as tool
from tools.docs import committed_results as shown

from feedalign.lab.experiments import CLAIMS, NAMES, Verdict, get
from feedalign.lab.robustness import Robustness

ROOT = Path(__file__).parents[2]
EXTENSIONS = ["tools.docs.committed_results", "tables", "pymdownx.superfences"]
ROW = Robustness("two-phases", "abc", "quick", "", 1, 4, 5, 0.1, 0.2, "above 0", "claim")


def verdict(effect: float = 0.75) -> Verdict:
    return Verdict("|w| rises", effect, 0.1, 0.5, "above", "a draw", runs=7)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_has_a_committed_result_and_a_page_that_shows_it(name: str) -> None:
    found = shown.results()[name]
    assert (found["experiment"], found["preset"], found["dataset"]) == (name, "quick", None)
    assert found["claim"] == CLAIMS[name]
    assert (ROOT / f"results/{name}.svg").read_bytes().startswith(b"<?xml")
    assert f"<!-- results: {name} -->" in (ROOT / f"docs/results/{name}.md").read_text(encoding="utf-8")


def test_every_committed_result_is_of_an_experiment_that_exists_and_named_for_what_it_is() -> None:
    for stem, found in shown.results().items():
        assert stem == tool.stem(found["experiment"], found["dataset"], found["preset"])
        assert get(found["experiment"]).CONFIGS


def test_a_part_is_written_with_all_that_a_reader_needs() -> None:
    part = tool.part(verdict(), ROW)
    assert part["verdict"] == "supported"
    assert part["interval"] == pytest.approx(verdict().interval, rel=1e-5)
    assert part["other_base_seeds"] == {"supported": 4, "seeds": 5}
    assert (part["side"], part["threshold"], part["runs"], part["sample"]) == ("above", 0.5, 7, "a draw")
    assert tool.part(verdict(), None)["other_base_seeds"] is None


def test_a_number_that_is_missing_is_valid_json_and_a_dash_on_the_page() -> None:
    part = tool.part(verdict(math.nan), None)
    assert json.loads(json.dumps(part, allow_nan=False))["effect"] is None
    assert shown.effect(part) == "– (– to –)"


def test_a_table_has_a_cell_for_every_column_and_keeps_bars_inside_a_claim() -> None:
    for row in (None, ROW):
        html = markdown(shown.table([tool.part(verdict(), row)]), extensions=EXTENSIONS)
        assert html.count("<th>") == html.count("<td>") == (5 if row is None else 6)
        assert "|w| rises" in html
        assert ("supported in 4 of 5" in html) == (row is not None)


def test_a_page_shows_figure_verdicts_and_command_where_it_asks_for_them() -> None:
    html = markdown("BEFORE\n\n<!-- results: sharing -->\n\nAFTER", extensions=EXTENSIONS)
    order = [html.index(part) for part in ("BEFORE", "results/sharing.svg", "<table>", "reproduce", "AFTER")]
    assert order == sorted(order)
    assert html.count('<span class="verdict') == len(shown.results()["sharing"]["parts"])
    with pytest.raises(ValueError, match=r"a page asks for the result 'shearing'; results/ has .*sharing"):
        markdown("<!-- results: shearing -->", extensions=EXTENSIONS)


def test_the_overview_has_a_line_for_each_result() -> None:
    html = markdown("<!-- results -->", extensions=EXTENSIONS)
    assert html.count("<tr>") == 1 + len(shown.results())
    words = [part["verdict"] for part in shown.results()["layerwise"]["parts"]]
    assert f"{words.count('supported')} of {len(words)}" in html


def test_files_of_experiments_that_are_gone_are_removed_and_others_stay(tmp_path: Path) -> None:
    for stem, name in {"gone": "gone", "gone-mnist": "gone", "layerwise-mnist": "layerwise"}.items():
        (tmp_path / f"{stem}.json").write_text(json.dumps({"experiment": name}))
        (tmp_path / f"{stem}.svg").write_text("<svg/>")
    tool.remove_strangers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layerwise-mnist.json", "layerwise-mnist.svg"]
