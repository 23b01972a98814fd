"""The section on deep networks: controls, a button that trains, and the figures that grow while the networks learn."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from dash import html

from feedalign.errors import FeedalignError, OutputError
from feedalign.lab.explore.controls import Choice, Dial, SeedField, chart, form, group, section
from feedalign.lab.explore.deep_study import COMPARED, DeepSetting, DeepTraining
from feedalign.lab.explore.figures import deep_figures
from feedalign.style import RULE_LABELS

KEPT = 4  # trainings: those of older tabs of the browser are forgotten
NUMBERS = {
    "layers": Dial("layers", "hidden layers", 1, 5, 1, 3),
    "width": Dial("width", "units of a layer", 3, 8, 1, 6, base=2),
    "lr": Dial("deep-lr", "learning rate", -3, 0.5, 0.1, -1.5, base=10),
    "epochs": Dial("epochs", "epochs", 5, 100, 5, 30),
}
ACTIVATION = Choice("deep-activation", "activation", {"tanh": "tanh", "relu": "ReLU"})
SEED = SeedField("deep-seed", DeepSetting().seed)
BUTTONS = """<div class="buttons"><button type="button" id="train">Train</button>
<button type="button" id="stop">Stop</button></div>"""
CHARTS = {
    "accuracy": ("Test accuracy", "Share of the 355 test digits that the network tells right."),
    "gradient": (
        "Gradient alignment",
        "Cosine of what DFA sends to a layer and what backprop would send. Solid: the network that DFA trains. Dotted: "
        "the network that backprop trains.",
    ),
    "weight": (
        "Weight alignment",
        "Cosine of a layer's weights and the product of the feedback matrices below and above. Solid: DFA. Dotted: "
        "backprop.",
    ),
}


class Trainings:
    """The trainings that tabs of the browser look at. Each learns only while somebody asks for it."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, DeepTraining] = OrderedDict()

    def begin(self, setting: DeepSetting) -> str:
        """Begin a training, and return the name by which to ask for it."""
        name = uuid.uuid4().hex
        self._known[name] = DeepTraining(setting)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return name

    def find(self, name: str) -> DeepTraining | None:
        """Return a training; None if it is not known any more."""
        return self._known.get(name)


def layout() -> html.Section:
    """Return the section."""
    empty = deep_figures(DeepSetting(), {rule: [] for rule in COMPARED})
    controls = form(
        "deep-controls",
        group("Networks", ACTIVATION, NUMBERS["layers"], NUMBERS["width"]),
        group("Learning", NUMBERS["lr"], NUMBERS["epochs"], SEED),
        BUTTONS,
    )
    results = [
        html.P("Press Train.", id="progress", role="status"),
        html.Div(id="deep-troubles", className="troubles", role="alert"),
        html.Div([chart(name, *texts, figure=empty[name]) for name, texts in CHARTS.items()], className="charts"),
    ]
    words = (
        "Two networks with the same initial weights learn handwritten digits, one by DFA and one by backprop. Watch "
        "the layers align, from the bottom up."
    )
    return section("deep", "A deep network, live", words, controls, results)


def setting_of(choices: dict[str, Any]) -> DeepSetting:
    """Return what the positions of the controls mean."""
    numbers = {name: dial.number(choices[dial.key]) for name, dial in NUMBERS.items()}
    return DeepSetting(
        layers=int(numbers["layers"]),
        width=int(numbers["width"]),
        activation=choices[ACTIVATION.key],
        lr=numbers["lr"],
        epochs=int(numbers["epochs"]),
        seed=SEED.number(choices[SEED.key]),
    )


def answers() -> dict[str, Callable[[Any], dict[str, Any]]]:
    """Return what answers the page when a dial has moved, when Train was pressed, and for each epoch, by question."""
    trainings = Trainings()
    return {
        "deep-dials": lambda choices: {"dials": dials_shown(choices)},
        "training": lambda choices: begun(trainings, choices),
        "epoch": lambda name: answer(trainings, name),
    }


def dials_shown(choices: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the number beside each dial; no dial is ever hidden."""
    return {dial.key: {"text": dial.text(choices[dial.key]), "hidden": False} for dial in NUMBERS.values()}


def begun(trainings: Trainings, choices: dict[str, Any]) -> dict[str, Any]:
    """Begin a training with the positions of the controls; answer with its name, or say why there is none."""
    name, troubles = None, []
    try:
        name = trainings.begin(setting_of(choices))
    except FeedalignError as error:
        troubles.append(html.P(str(error)))
    return {"training": name, "shown": {"deep-troubles": {"children": troubles}}}


def answer(trainings: Trainings, name: str) -> dict[str, Any]:
    """Train for one more epoch; answer with what the page shows then, and with the name if there is more to come."""
    training = trainings.find(name)
    if training is None:
        gone = html.P("This training is not known any more. Press Train to begin another.")
        return {"training": None, "shown": {"progress": {"children": ""}, "deep-troubles": {"children": [gone]}}}
    troubles = []
    try:
        training.advance()
    except OutputError as error:
        troubles.append(html.P(f"{error}. Lower the learning rate, and press Train."))
    figures = deep_figures(training.setting, training.moments)
    return {
        "training": None if training.done or troubles else name,
        "shown": {
            **{chart: {"figure": figure} for chart, figure in figures.items()},
            "progress": {"children": _progress(training)},
            "deep-troubles": {"children": troubles},
        },
    }


def _progress(training: DeepTraining) -> str:
    accuracies = ", ".join(
        f"{RULE_LABELS[rule]} {training.moments[rule][-1].accuracy:.0%}" for rule in COMPARED if training.moments[rule]
    )
    return f"Epoch {training.epoch} of {training.setting.epochs}. Test accuracy: {accuracies}."
