"""The two phases of learning in a shallow network, from the equations of `feedalign.theory.shallow`."""

from __future__ import annotations

import math

import numpy as np
from tools.pictures.canvas import Canvas, Point

from feedalign.theory import shallow

LEFT, RIGHT, TOP, BOTTOM = 70.0, 740.0, 60.0, 280.0
START, END = 0.03, 3000.0
LOWEST = -0.15  # of the vertical axis


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 340, "The cosine of readout and feedback rises first; the error falls afterwards")
    rng = np.random.default_rng(9)  # a start whose readout does not point along the feedback
    start = shallow.draw_start([1.0, 1.0], students=2, input_dim=500, rng=rng, w_std=0.01, v_std=0.01)
    feedback = shallow.draw_feedback("random", start, rng)
    times = np.geomspace(START, END, 120)
    found = shallow.integrate(start, feedback=feedback, lr=0.1, times=times)
    error = found.generalisation_error / found.generalisation_error[0]
    halved = float(times[np.argmax(error < 0.5)])
    border = _across(halved)
    canvas.area((LEFT, TOP), (border - LEFT, BOTTOM - TOP), "soft")
    canvas.area((border, TOP), (RIGHT - border, BOTTOM - TOP), "cool")
    canvas.text(((LEFT + border) / 2, 30), "1  align", size=17, bold=True, colour="error")
    canvas.text(((LEFT + border) / 2, 49), "the readout turns to the feedback", size=13, colour="muted")
    canvas.text(((border + RIGHT) / 2, 30), "2  memorise", size=17, bold=True, colour="forward")
    canvas.text(((border + RIGHT) / 2, 49), "the signal is useful now: the error falls", size=13, colour="muted")
    canvas.line([(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], colour="muted", width=1.2)
    for value in (0, 0.5, 1):
        canvas.text((LEFT - 10, _up(value)), f"{value:g}", size=12, colour="muted", anchor="end")
    for power in range(-1, 4):
        canvas.text((_across(10.0**power), BOTTOM + 16), f"{10.0**power:g}", size=12, colour="muted")
    canvas.text(((LEFT + RIGHT) / 2, BOTTOM + 42), "time: steps / input dimension", size=13, colour="muted")
    canvas.line([(LEFT, _up(0)), (RIGHT, _up(0))], colour="muted", width=0.6, dashed=True)
    canvas.line(_curve(times, found.overlap), colour="error", width=2.6)
    canvas.line(_curve(times, error), colour="forward", width=2.6)
    at = int(np.argmax(found.overlap > 0.6))
    canvas.text(
        (_across(float(times[at])) - 10, _up(0.66)), "cos(readout, feedback)", size=13, colour="error", anchor="end"
    )
    after = int(np.argmax(error < 0.35))
    canvas.text(
        (_across(float(times[after])) + 12, _up(0.4)),
        "error / error at the start",
        size=13,
        colour="forward",
        anchor="start",
    )
    return canvas


def _across(time: float) -> float:
    return LEFT + (RIGHT - LEFT) * math.log(time / START) / math.log(END / START)


def _up(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * 0.96 * (value - LOWEST) / (1 - LOWEST)


def _curve(times: np.ndarray, values: np.ndarray) -> list[Point]:
    return [(_across(float(time)), _up(float(value))) for time, value in zip(times, values, strict=True)]
