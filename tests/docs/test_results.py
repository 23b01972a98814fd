"""The committed results: what the tool writes, and what the documentation shows of them."""

from __future__ import annotations

import io
import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from markdown import markdown
from tools import results as tool
from tools.docs import committed_results as shown

from feedalign.lab.changes import changed, read_options
from feedalign.lab.experiments import CLAIMS, NAMES, Verdict, get
from feedalign.lab.robustness import Robustness
from feedalign.lab.runs import config_hash

ROOT = Path(__file__).parents[2]
EXTENSIONS = ["tools.docs.committed_results", "tables", "pymdownx.superfences"]
ROW = Robustness("two-phases", "abc", "quick", "", 1, 4, 5, 0.1, 0.2, "above 0", "claim")


def verdict(effect: float = 0.75) -> Verdict:
    return Verdict("|w| rises", effect, 0.1, 0.5, "above", "a draw", runs=7)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_has_a_committed_result_and_a_page_that_shows_it(name: str) -> None:
    found = shown.results()[name]
    assert (found["experiment"], found["preset"], found["dataset"]) == (name, "quick", None)
    assert not found.get("changes")
    assert found["claim"] == CLAIMS[name]
    assert (ROOT / f"results/{name}.svg").read_bytes().startswith(b"<?xml")
    assert f"<!-- results: {name} -->" in (ROOT / f"docs/results/{name}.md").read_text(encoding="utf-8")


def test_every_committed_result_is_of_an_experiment_that_exists_and_named_for_what_it_is() -> None:
    for stem, found in shown.results().items():
        assert stem == tool.stem(found["experiment"], found["dataset"], found["preset"])
        assert get(found["experiment"]).CONFIGS


PAPER = [name for name in NAMES if f"paper/{name}" in shown.results()]


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_run_is_the_preset_with_the_changes_that_it_tells(name: str) -> None:
    found, experiment = shown.results()[f"paper/{name}"], get(name)
    config, changes = changed(experiment.CONFIGS["paper"], {each["field"]: each["run"] for each in found["changes"]})
    assert config_hash(name, config) == found["config_hash"]
    assert [json.loads(json.dumps(change.before)) for change in changes] == [
        each["preset"] for each in found["changes"]
    ]
    assert read_options([word for word in shlex.split(found["command"]) if "=" in word]) == {
        each["field"]: each["run"] for each in found["changes"]
    }
    assert f"<!-- paper: {name} -->" in (ROOT / f"docs/results/{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stem", shown.results())
def test_a_committed_data_set_is_small_and_has_the_verdicts_that_are_told(stem: str) -> None:
    path = ROOT / f"results/{stem}.nc"
    assert path.stat().st_size <= tool.LARGEST
    found = shown.results()[stem]
    verdicts = get(found["experiment"]).check(xr.load_dataset(path, engine="h5netcdf"))
    told = found["parts"]
    assert [verdict.word for verdict in verdicts] == [part["verdict"] for part in told]
    for verdict, part in zip(verdicts, told, strict=True):
        effect = math.nan if part["effect"] is None else part["effect"]
        assert verdict.effect == pytest.approx(effect, rel=1e-3, abs=1e-4, nan_ok=True)


def test_a_data_set_that_is_too_large_is_not_written() -> None:
    noise = np.random.default_rng(0).standard_normal(10**6)
    with pytest.raises(ValueError, match=r"the data set has [\d,]+ bytes, at most 2,000,000 are allowed"):
        tool.compressed(xr.Dataset({"noise": ("x", noise)}))


def test_a_small_data_set_keeps_whole_numbers_names_and_units() -> None:
    dataset = xr.Dataset({"loss": ("step", [0.1, 0.2], {"units": "bits"}), "count": ("step", [2**30 + 1, 2])})
    dataset = dataset.assign_coords(step=("step", [0.1, 1e-9], {"units": "steps"}))
    again = xr.load_dataset(io.BytesIO(tool.compressed(dataset)), engine="h5netcdf")
    xr.testing.assert_allclose(again, dataset, rtol=1e-6)
    assert again["count"].values.tolist() == [2**30 + 1, 2]
    assert again.loss.attrs["units"] == "bits"


def test_the_changes_of_a_run_are_a_table_and_a_run_without_changes_says_so() -> None:
    found: dict[str, Any] = {"parts": [{"verdict": "supported"}, {"verdict": "not supported"}], "changes": []}
    assert shown.reduced(found) == (
        "This run has the preset *paper* as it is. At this size 1 of 2 parts of the claim are supported."
    )
    found["changes"] = [{"field": "norms", "preset": [2.0, 8.0], "run": [2.0]}]
    html = markdown(shown.reduced(found), extensions=EXTENSIONS)
    assert "1 of 2 parts" in html
    assert "<td><code>norms</code></td>\n<td>[2.0, 8.0]</td>\n<td>[2.0]</td>" in html


def test_only_runs_of_the_paper_preset_may_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tool.main(["layerwise", "--set", "draws=2"])
    assert "--set is for --preset paper" in capsys.readouterr().err


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


def test_the_overview_has_a_line_for_each_experiment() -> None:
    html = markdown("<!-- results -->", extensions=EXTENSIONS)
    assert html.count("<tr>") == 1 + sum(found["preset"] == "quick" for found in shown.results().values())
    words = [part["verdict"] for part in shown.results()["layerwise"]["parts"]]
    assert f"{words.count('supported')} of {len(words)}" in html


def test_files_of_experiments_that_are_gone_are_removed_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/gone.nc").touch()
    for stem, name in {"gone": "gone", "paper/gone": "gone", "layerwise-mnist": "layerwise"}.items():
        (tmp_path / f"{stem}.json").write_text(json.dumps({"experiment": name}))
        (tmp_path / f"{stem}.svg").write_text("<svg/>")
    tool.remove_strangers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["layerwise-mnist.json", "layerwise-mnist.svg"]
