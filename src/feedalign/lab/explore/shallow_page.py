"""The section on shallow networks: controls, figures, and what happens when a control is moved."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from dash import html

from feedalign.errors import FeedalignError
from feedalign.lab.explore.controls import Choice, Dial, SeedField, Tick, chart, form, group, section
from feedalign.lab.explore.figures import shallow_figures
from feedalign.lab.explore.shallow_study import Pick, ShallowSetting, study

MOST = 4  # units of student or teacher: with more, ReLU takes many seconds
NUMBERS = {
    "students": Dial("students", "K, student units", 1, MOST, 1, 2),
    "teachers": Dial("teachers", "M, teacher units", 1, MOST, 1, 2),
    "lr": Dial("lr", "η, learning rate", -2, 1.5, 0.05, -0.3, base=10),
    "noise": Dial("noise", "σ, label noise", 0, 1, 0.05, 0),
    "end": Dial("end", "time at the end", 1, 4, 0.1, 3.3, base=10),
}
_START = {"A": (1.0, 0.5, 0.8, 1.3), "F": (0.4, -1.2, 0.8, 1.6)}
UNITS = {
    name: tuple(Dial(f"{name}-{i + 1}", f"{name}{'₁₂₃₄'[i]}", -2, 2, 0.1, values[i]) for i in range(MOST))
    for name, values in _START.items()
}
DIALS = (*NUMBERS.values(), *itertools.chain(*UNITS.values()))
ACTIVATION = Choice("activation", "activation", {"erf": "erf", "relu": "ReLU"})
SEED = SeedField("seed", ShallowSetting().seed)
SIMULATE = Tick("simulate", "simulate a network of 500 inputs")
CHARTS = {
    "error": ("Generalisation error", "Half the mean squared difference of student and teacher."),
    "overlap": ("Alignment of the readout", "The readout v first turns to the feedback F, and only then learns."),
    "readout": ("Readout, and the minimum picked", "Under DFA. Dotted: the minimum that A and F predict."),
    "R": (
        "R, student and teacher",
        "Overlap of each student unit (colour) with each teacher unit (dashes), under DFA.",
    ),
    "Q": ("Q, student and student", "Overlap of the student units with one another, under DFA."),
}


def layout() -> html.Section:
    """Return the section."""
    controls = form(
        "shallow-controls",
        group("Networks", ACTIVATION, NUMBERS["students"], NUMBERS["teachers"]),
        group("Learning", NUMBERS["lr"], NUMBERS["noise"], NUMBERS["end"]),
        group("A, readout of the teacher", *UNITS["A"]),
        group("F, feedback", *UNITS["F"]),
        group("Random start", SEED, SIMULATE),
    )
    pick = html.Div([html.H3("Which minimum does DFA pick?"), html.Div(id="pick")], className="chart")
    results = [
        html.Div(id="shallow-troubles", className="troubles", role="alert"),
        html.Div([*(chart(name, *texts) for name, texts in CHARTS.items()), pick], className="charts"),
    ]
    words = (
        "A student of K hidden units learns from a teacher of M hidden units, one example at a time. The curves are "
        "exact for infinitely many inputs. Move a control, and the curves follow."
    )
    return section("shallow", "A shallow network, in theory", words, controls, results)


def setting_of(choices: dict[str, Any]) -> ShallowSetting:
    """Return what the positions of the controls mean."""
    numbers = {name: dial.number(choices[dial.key]) for name, dial in NUMBERS.items()}
    vectors = {
        name: tuple(dial.number(choices[dial.key]) for dial in dials[: int(numbers[units])])
        for (name, dials), units in zip(UNITS.items(), ("teachers", "students"), strict=True)
    }
    return ShallowSetting(
        activation=choices[ACTIVATION.key],
        A=vectors["A"],
        F=vectors["F"],
        lr=numbers["lr"],
        noise_std=numbers["noise"],
        end_time=numbers["end"],
        seed=SEED.number(choices[SEED.key]),
        simulate=SIMULATE.key in choices,
    )


def answers() -> dict[str, Callable[[Any], dict[str, Any]]]:
    """Return what answers the questions that the page asks when a control has moved, by the name of the question."""
    return {
        "shallow": lambda choices: {"shown": answer(choices)},
        "shallow-dials": lambda choices: {"dials": dials_shown(choices)},
    }


def dials_shown(choices: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the number beside each dial, and whether the dial is hidden because its unit does not exist."""
    hidden = {
        dial.key: i >= NUMBERS[units].number(choices[units])
        for dials, units in zip(UNITS.values(), ("teachers", "students"), strict=True)
        for i, dial in enumerate(dials)
    }
    return {dial.key: {"text": dial.text(choices[dial.key]), "hidden": hidden.get(dial.key, False)} for dial in DIALS}


def answer(choices: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures, the minimum and the troubles for the positions of the controls."""
    try:
        setting = setting_of(choices)
        found = study(setting)
    except FeedalignError as error:
        return {"shallow-troubles": {"children": [html.P(str(error))]}}
    return {
        **{name: {"figure": figure} for name, figure in shallow_figures(found).items()},
        "pick": {"children": _pick(setting, found.pick)},
        "shallow-troubles": {"children": [html.P(trouble) for trouble in found.troubles]},
    }


def _pick(setting: ShallowSetting, pick: Pick | None) -> list[Any]:
    """Return the minimum in words, and the vectors to compare as a table with a row for each student unit."""
    if pick is None:
        return []
    columns: dict[str, Sequence[float]] = {"F": setting.F, **{name: v.tolist() for name, v in pick.v.items()}}
    table = html.Table(
        [
            html.Thead(html.Tr([html.Th("unit"), *(html.Th(name) for name in columns)])),
            html.Tbody(
                [
                    html.Tr([html.Td(k + 1), *(html.Td(f"{values[k]:.2f}") for values in columns.values())])
                    for k in range(len(setting.F))
                ]
            ),
        ]
    )
    return [html.P(pick.words), table]
