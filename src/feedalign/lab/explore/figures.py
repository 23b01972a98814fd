"""What was computed, as figures: plain dictionaries in the form that plotly draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from feedalign.lab.explore.deep_study import COMPARED, DeepSetting, Moment
from feedalign.lab.explore.shallow_study import FIRST_TIME, ShallowStudy
from feedalign.style import RULE_COLOURS, RULE_LABELS

Figure = dict[str, Any]

# Of units and layers. Okabe & Ito's palette, without the colours of the rules.
COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#9A8CE0")
DASHES = ("solid", "dash", "dot", "dashdot")
FIRST_EPOCH = 0.02  # about one step
SMALLEST_ERROR = 1e-8  # below, ε_g is rounding, and may be negative


def shallow_figures(found: ShallowStudy) -> dict[str, Figure]:
    """Return the figures of a shallow network by name: error, overlap, readout, R and Q."""
    error, overlap = [], []
    for rule, curve in found.theory.items():
        look = {"name": f"{RULE_LABELS[rule]}, theory", "line": {"color": RULE_COLOURS[rule], "width": 2.5}}
        shown = np.maximum(curve.generalisation_error, SMALLEST_ERROR)
        error.append(_curve(curve.times, shown, look))
        overlap.append(_curve(curve.times, curve.overlap, look))
    if (points := found.simulation) is not None:
        look = {"name": "DFA, simulated", "mode": "markers", "marker": {"color": RULE_COLOURS["dfa"], "size": 6}}
        error.append(_curve(points.times, np.maximum(points.generalisation_error, SMALLEST_ERROR), look))
        overlap.append(_curve(points.times, points.overlap, look))
    time = _log_axis("time (steps / N)", FIRST_TIME, found.setting.end_time) | {"exponentformat": "power"}
    return {
        "error": _figure(error, time, {"type": "log", "title": {"text": "ε<sub>g</sub>"}, "exponentformat": "power"}),
        "overlap": _figure(overlap, time, {"range": [-1.05, 1.05], "title": {"text": "cos(v, F)"}}),
        "readout": _figure(_readout(found), time, {"title": {"text": "v"}}),
        "R": _figure(_overlaps(found, "R"), time, {"title": {"text": "R"}}),
        "Q": _figure(_overlaps(found, "Q"), time, {"title": {"text": "Q"}}),
    }


def _readout(found: ShallowStudy) -> list[Figure]:
    """The second layer of the student along time, and the minimum that is predicted."""
    if found.pick is None:  # nor is there a curve under DFA
        return []
    curve, curves = found.theory["dfa"], []
    for k in range(len(found.setting.F)):
        look = {"name": f"v{_index(k)}", "line": {"color": COLOURS[k], "width": 2.5}}
        curves.append(_curve(curve.times, curve.v[:, k], look))
    for k, value in enumerate(found.pick.v.get("predicted", ())):
        look = {"name": f"predicted v{_index(k)}", "line": {"color": COLOURS[k], "dash": "dot", "width": 1.5}}
        curves.append(_curve([FIRST_TIME, found.setting.end_time], [value, value], look))
    return curves


def _overlaps(found: ShallowStudy, name: str) -> list[Figure]:
    """Every entry of R or Q under DFA along time: colour by the student unit, dashes by the other unit."""
    if "dfa" not in found.theory:
        return []
    curve = found.theory["dfa"]
    values = getattr(curve, name)
    curves = []
    for k, other in np.ndindex(values.shape[1:]):
        if name == "R" or k <= other:
            line = {"color": COLOURS[k], "dash": DASHES[other], "width": 2}
            look = {"name": f"{name}{_index(k)}{_index(other)}", "line": line}
            curves.append(_curve(curve.times, values[:, k, other], look))
    return curves


def deep_figures(setting: DeepSetting, moments: dict[str, list[Moment]]) -> dict[str, Figure]:
    """Return the figures of a deep network by name: accuracy, gradient and weight. Moments are by rule."""
    accuracy, gradient, weight = list[Figure](), list[Figure](), list[Figure]()
    for rule in COMPARED:
        times = [moment.epoch for moment in moments[rule]]
        look: Figure = {"name": RULE_LABELS[rule], "line": {"color": RULE_COLOURS[rule], "width": 2.5}}
        accuracy.append(_curve(times, [moment.accuracy for moment in moments[rule]], look))
        width, dash = (2.5, "solid") if rule == "dfa" else (1.5, "dot")
        for layer in range(setting.layers):
            line = {"color": COLOURS[layer], "width": width, "dash": dash}
            for curves, values, number in (
                (gradient, [moment.gradient[layer] for moment in moments[rule]], layer + 1),
                (weight, [moment.weight[layer] for moment in moments[rule]], layer + 2),
            ):
                # Of the two rules, one line in the legend: the caption says which is solid, which dotted.
                look = {"name": f"layer {number}", "line": line, "showlegend": rule == "dfa"}
                curves.append(_curve(times, values, look))
    epochs = _log_axis("epoch", FIRST_EPOCH, setting.epochs)
    cosine = {"range": [-0.15, 1.02], "title": {"text": "cosine"}}
    share = {"range": [0, 1.02], "title": {"text": "test accuracy"}, "tickformat": ".0%"}
    return {
        "accuracy": _figure(accuracy, epochs, share),
        "gradient": _figure(gradient, epochs, cosine),
        "weight": _figure(weight, epochs, cosine),
    }


def _curve(x: Any, y: Any, look: Figure) -> Figure:
    # NaN is no JSON; plotly leaves a gap at None.
    values = [float(value) if np.isfinite(value) else None for value in y]
    return {"type": "scatter", "mode": "lines", "x": [float(value) for value in x], "y": values, **look}


def _log_axis(title: str, first: float, last: float) -> Figure:
    return {"type": "log", "title": {"text": title}, "range": [math.log10(first), math.log10(last)]}


def _figure(curves: list[Figure], x: Figure, y: Figure) -> Figure:
    """Return a figure without a background; the page's style sheet colours text and grid, light or dark."""
    return {
        "data": curves,
        "layout": {
            "xaxis": {"zeroline": False, "dtick": 1, **x},
            "yaxis": {"zeroline": False, **y},
            "margin": {"l": 58, "r": 8, "t": 8, "b": 44},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
            "hovermode": "closest",
            "showlegend": True,
            "autosize": True,
            "uirevision": "kept",  # a zoomed axis stays zoomed while a control is moved
        },
    }


def _index(number: int) -> str:
    """Return a unit's number, counted from 1, as a subscript."""
    return "₁₂₃₄₅"[number]
