"""Where the readout of a shallow network ends, from several starts: with DFA and with backprop."""

from __future__ import annotations

import numpy as np
from tools.pictures.canvas import Canvas, Point

from feedalign.theory import shallow

TEACHER, FEEDBACK = np.array([0.8, 1.5]), np.array([1.0, -0.5])
SIDE, REACH, STARTS = 300.0, 2.1, 6


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(
        780, 400, "From many starts, DFA ends at the one solution that its feedback prefers; backprop does not"
    )
    for rule, title, left, colour in (
        ("bp", "Backprop: another solution from each start", 50.0, "forward"),
        ("dfa", "DFA: one solution, whatever the start", 430.0, "error"),
    ):
        canvas.text((left + SIDE / 2, 18), title, size=15, bold=True, colour=colour)
        _frame(canvas, left)
        for signs, order in ((s, o) for s in np.ndindex(2, 2) for o in ((0, 1), (1, 0))):
            v = TEACHER[list(order)] * (1 - 2 * np.array(signs))
            canvas.dot(_at(left, v), 6, colour="muted", hollow=True)
        for seed in range(STARTS):
            path = _readouts(rule, seed)
            canvas.line([_at(left, v) for v in path], colour=colour, width=1.6, opacity=0.75)
            canvas.dot(_at(left, path[-1]), 6, colour=colour)
        if rule == "dfa":
            canvas.arrow([_at(left, np.zeros(2)), _at(left, FEEDBACK)], colour="good", width=2.6)
            tip = _at(left, FEEDBACK)
            canvas.text((tip[0] - 12, tip[1] + 16), "F", size=15, colour="good", bold=True)
    canvas.text(
        (390, 372), "○ the eight equally good solutions of a network with two hidden units", size=13, colour="muted"
    )
    canvas.text(
        (390, 392), f"each line: the readout (v₁, v₂) from one of {STARTS} small random starts", size=13, colour="muted"
    )
    return canvas


def _frame(canvas: Canvas, left: float) -> None:
    canvas.box((left + SIDE / 2, 40 + SIDE / 2), (SIDE, SIDE), edge="muted", radius=4)
    canvas.line([_at(left, np.array([-REACH, 0])), _at(left, np.array([REACH, 0]))], colour="muted", width=0.6)
    canvas.line([_at(left, np.array([0, -REACH])), _at(left, np.array([0, REACH]))], colour="muted", width=0.6)
    canvas.text((left + SIDE - 12, 40 + SIDE / 2 + 12), "v₁", size=12, colour="muted")
    canvas.text((left + SIDE / 2 + 14, 52), "v₂", size=12, colour="muted")


def _at(left: float, v: np.ndarray) -> Point:
    return (left + SIDE * (v[0] + REACH) / (2 * REACH), 40 + SIDE * (REACH - v[1]) / (2 * REACH))


def _readouts(rule: str, seed: int) -> np.ndarray:
    """Return the readout along training, [times, 2], from a start of its own and the same teacher."""
    rng = np.random.default_rng(seed)
    start = shallow.draw_start(TEACHER, students=2, input_dim=500, rng=rng, w_std=0.01, v_std=0.01)
    end = 100_000.0
    return shallow.integrate(start, feedback=FEEDBACK, lr=0.1, times=np.geomspace(1, end, 150), rule=rule).v  # type: ignore[arg-type]
