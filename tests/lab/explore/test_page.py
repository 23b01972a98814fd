"""The page without a browser: what its controls mean, and what it answers to their positions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from dash.development.base_component import Component

from feedalign.errors import ArgumentError
from feedalign.lab.explore import deep_page, shallow_page
from feedalign.lab.explore.app import create, layout
from feedalign.lab.explore.controls import Choice, Dial, SeedField
from feedalign.lab.explore.deep_study import DeepSetting
from feedalign.lab.explore.shallow_study import ShallowSetting, study
from feedalign.style import RULE_COLOURS


def components(root: Any) -> Iterator[Any]:
    """Every component of a page."""
    if isinstance(root, Component):
        yield root
        root = getattr(root, "children", None)
    if isinstance(root, (list, tuple)):
        for each in root:
            yield from components(each)
    elif isinstance(root, Component):
        yield from components(root)


class Controls(HTMLParser):
    """The controls of the page as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[dict[str, str | None]] = []
        self.labelled: set[str | None] = set()  # the id of an input, or the name of an input inside of its label
        self._inside = False
        for form in components(layout()):
            if type(form).__name__ == "Form":
                self.feed(getattr(form, "data-controls"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "label":
            self._inside = True
            self.labelled.add(given.get("for"))
        if tag == "input":
            self.inputs.append(given)
            if self._inside:
                self.labelled.add(given["name"])

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "label"


def start(**changes: str) -> dict[str, str]:
    """The positions of all controls when the page is opened, as the browser sends them, but for some changes."""
    chosen = [each for each in Controls().inputs if each["type"] not in ("radio", "checkbox") or "checked" in each]
    return {str(each["name"]): str(each["value"]) for each in chosen} | changes


def shown_figures(shown: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of an answer by name."""
    return {name: properties["figure"] for name, properties in shown.items() if "figure" in properties}


def test_the_page_opens_with_the_settings_of_the_studies() -> None:
    shown = shallow_page.setting_of(start())
    assert shown == ShallowSetting(end_time=shown.end_time)
    assert shown.end_time == pytest.approx(ShallowSetting().end_time, rel=0.01)
    deep = deep_page.setting_of(start())
    assert deep == DeepSetting(lr=deep.lr)
    assert deep.lr == pytest.approx(DeepSetting().lr, rel=0.1)


def test_every_control_has_a_label_and_no_two_have_one_name() -> None:
    page = Controls()
    names = [each.id for each in components(layout()) if hasattr(each, "id")]
    names += [str(each["id"]) for each in page.inputs if "id" in each]
    assert len(set(names)) == len(names)
    assert {each["type"] for each in page.inputs} == {"range", "radio", "number", "checkbox"}
    assert {each["name"] for each in page.inputs} <= page.labelled


def test_positions_mean_numbers() -> None:
    plain, powers = Dial("a", "a", -2, 2, 0.1, 0), Dial("b", "b", -2, 2, 0.1, 0, base=10)
    assert [plain.number(at) for at in (-2, "0.5", 7)] == [-2, 0.5, 2]
    assert [powers.number(at) for at in (-2, "0", 0.5, 7)] == [0.01, 1, 3.2, 100]


def test_a_screen_reader_reads_the_number_and_not_the_position() -> None:
    assert 'aria-valuetext="0.1"' in Dial("a", "a", -2, 2, 0.1, -1, base=10).markup()


def test_the_first_option_is_taken_and_labels_are_escaped() -> None:
    markup = Choice("a", "a", {"x": "p < q", "y": "y"}).markup()
    assert 'value="x" checked> p &lt; q' in markup
    assert markup.count("checked") == 1


def test_an_empty_seed_is_zero() -> None:
    assert [SeedField("seed", 6).number(typed) for typed in ("", "3", "12")] == [0, 3, 12]


@pytest.mark.parametrize("typed", ["-1", "1.5", "1e3", "²"])
def test_a_seed_that_is_no_whole_number_is_refused_in_words(typed: str) -> None:
    with pytest.raises(ArgumentError, match=f"the seed is {typed}; a seed is a whole number"):
        SeedField("seed", 6).number(typed)
    answer = shallow_page.answer(start(seed=typed))
    assert answer.keys() == {"shallow-troubles"}  # the figures stay as they are
    begun = deep_page.begun(deep_page.Trainings(), start(**{"deep-seed": typed}))
    for shown in (answer["shallow-troubles"], begun["shown"]["deep-troubles"]):
        assert "a seed is a whole number" in text(shown["children"])


def test_the_numbers_of_units_decide_how_many_entries_count() -> None:
    setting = shallow_page.setting_of(start(students="3", teachers="1"))
    assert (len(setting.F), len(setting.A)) == (3, 1)


@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_figures_show_what_was_computed(activation: str) -> None:
    positions = start(activation=activation, students="3", end="2", simulate="yes")
    figures = shown_figures(shallow_page.answer(positions))
    assert figures.keys() == shallow_page.CHARTS.keys()
    found = study(shallow_page.setting_of(positions))
    theory = found.theory["dfa"]
    error, overlap = figures["error"]["data"], figures["overlap"]["data"]
    assert [curve["name"] for curve in error] == ["DFA, theory", "backprop, theory", "DFA, simulated"]
    assert error[0]["line"]["color"] == RULE_COLOURS["dfa"]
    np.testing.assert_array_equal(error[0]["y"], theory.generalisation_error)
    np.testing.assert_array_equal(overlap[0]["y"], theory.overlap)
    np.testing.assert_array_equal(overlap[0]["x"], theory.times)
    overlaps = {curve["name"]: curve["y"] for curve in figures["R"]["data"] + figures["Q"]["data"]}
    assert len(overlaps) == 3 * 2 + 6
    np.testing.assert_array_equal(overlaps["R₃₂"], theory.R[:, 2, 1])
    np.testing.assert_array_equal(overlaps["Q₁₃"], theory.Q[:, 0, 2])


def test_the_readout_is_drawn_with_the_predicted_minimum() -> None:
    positions = start()
    readout = shown_figures(shallow_page.answer(positions))["readout"]
    curves = {curve["name"]: curve["y"] for curve in readout["data"]}
    found = study(shallow_page.setting_of(positions))
    assert found.pick is not None
    np.testing.assert_array_equal(curves["v₂"], found.theory["dfa"].v[:, 1])
    assert curves["predicted v₂"] == [found.pick.v["predicted"][1]] * 2


def test_answers_are_json_without_nan() -> None:
    """An error of zero, a cosine of v = 0 and a rule without a curve have no number that JSON knows."""
    no_cosine, no_error = {"F-1": "0", "F-2": "0"}, {"A-1": "0", "A-2": "0"}
    for changes in (no_cosine, no_error, {"students": "1", "teachers": "1", "F-1": "0"}):
        json.dumps(shown_figures(shallow_page.answer(start(**changes))), allow_nan=False)


def text(children: Any) -> str:
    """All words of some components."""
    found = []
    for each in components(children):
        inside = getattr(each, "children", None)
        found += [str(inside)] if isinstance(inside, (str, int)) else []
    return " ".join(found)


def test_the_pick_is_a_table_with_a_row_for_each_unit() -> None:
    pick = shallow_page.answer(start())["pick"]["children"]
    assert "arrived at the predicted minimum" in text(pick)
    rows = [each for each in components(pick) if type(each).__name__ == "Tr"]
    assert len(rows) == 1 + 2
    assert text(rows[2]).split()[:2] == ["2", "-1.20"]


def test_troubles_are_shown() -> None:
    answer = shallow_page.answer(start(activation="relu", lr="1.5", simulate="yes", **{"F-1": "2", "F-2": "2"}))
    assert "the simulation diverged at t" in text(answer["shallow-troubles"]["children"])
    refused = shallow_page.answer(start(activation="step"))
    assert "activation='step'" in text(refused["shallow-troubles"]["children"])


def test_the_numbers_beside_the_dials_follow_and_units_that_do_not_exist_are_hidden() -> None:
    shown = shallow_page.dials_shown(start(students="3", teachers="1"))
    assert shown["students"]["text"] == "3"
    assert shown["lr"]["text"] == "0.5"
    assert {name for name, dial in shown.items() if dial["hidden"]} == {"F-4", "A-2", "A-3", "A-4"}
    assert deep_page.dials_shown(start(width="5"))["width"] == {"text": "32", "hidden": False}


def begin(**changes: str) -> tuple[deep_page.Trainings, str]:
    """A training with some positions of the controls, and its name."""
    trainings = deep_page.Trainings()
    begun = deep_page.begun(trainings, start(**changes))
    assert begun["shown"]["deep-troubles"]["children"] == []
    return trainings, begun["training"]


def test_a_training_is_answered_epoch_by_epoch() -> None:
    trainings, name = begin(layers="2", width="3", epochs="5")
    answers = [deep_page.answer(trainings, name) for _ in range(5)]
    assert [each["training"] for each in answers] == [name] * 4 + [None]
    assert answers[0]["shown"]["progress"]["children"].startswith("Epoch 1 of 5. Test accuracy: DFA ")
    last = answers[-1]["shown"]
    assert last["progress"]["children"].startswith("Epoch 5 of 5.")
    assert last["deep-troubles"]["children"] == []
    figures = shown_figures(last)
    assert figures.keys() == deep_page.CHARTS.keys()
    assert [len(figures[name]["data"]) for name in ("accuracy", "gradient", "weight")] == [2, 4, 4]
    assert [curve["name"] for curve in figures["weight"]["data"]] == ["layer 2", "layer 3"] * 2
    training = trainings.find(name)
    assert training is not None
    moments = training.moments["dfa"]
    assert figures["gradient"]["data"][1]["y"] == [moment.gradient[1] for moment in moments]
    assert figures["accuracy"]["data"][0]["x"] == [moment.epoch for moment in moments]
    json.dumps(figures, allow_nan=False)


def test_a_training_that_diverges_ends_in_words() -> None:
    trainings = deep_page.Trainings()
    name = trainings.begin(DeepSetting(layers=2, width=8, activation="relu", lr=1e20))
    answer = deep_page.answer(trainings, name)
    assert answer["training"] is None
    assert "the network has diverged. Lower the learning rate" in text(answer["shown"]["deep-troubles"]["children"])


def test_a_training_that_cannot_begin_says_why() -> None:
    trainings, name = begin()
    assert trainings.find(name) is not None
    refused = deep_page.begun(trainings, start(**{"deep-activation": "step"}))
    assert refused["training"] is None
    assert "activation='step'" in text(refused["shown"]["deep-troubles"]["children"])


def test_a_forgotten_training_ends_in_words() -> None:
    trainings = deep_page.Trainings()
    names = [trainings.begin(DeepSetting(layers=1, width=4)) for _ in range(deep_page.KEPT + 1)]
    assert trainings.find(names[-1]) is not None
    assert trainings.find(names[1]) is not None
    assert trainings.find(names[0]) is None
    answer = deep_page.answer(trainings, names[0])
    assert answer["training"] is None
    assert "not known any more" in text(answer["shown"]["deep-troubles"]["children"])


@pytest.mark.parametrize(("question", "changes"), [("shallow", {"end": "1"}), ("training", {})])
def test_questions_are_answered_in_json(question: str, changes: dict[str, str]) -> None:
    """Components included, as the browser draws them."""
    response = create().server.test_client().post(f"/ask/{question}", json=start(**changes))
    assert response.status_code == 200
    assert response.is_json
    if question == "shallow":
        words, table = response.get_json()["shown"]["pick"]["children"]
        assert (words["type"], table["type"]) == ("P", "Table")
        assert "A and F alone predict" in words["props"]["children"]


def test_what_is_no_json_is_not_answered() -> None:
    """So that a form on another site cannot ask: a browser sends JSON to a foreign site only with its permission."""
    response = create().server.test_client().post("/ask/shallow", data="[1]", content_type="text/plain")
    assert response.status_code == 415


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = create().server.test_client().get("/").get_data(as_text=True)
    assert "_dash-component-suites" in page
    assert "https://" not in page
    assert "http://" not in page
