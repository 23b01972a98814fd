"""Errors of two outputs: equally large, unequal, and correlated."""

from __future__ import annotations

import math

from tools.pictures.canvas import Canvas

PANELS = (
    ("equal outputs", (62.0, 62.0), 0.0, ("all directions are learned", "at the same time: aligns well")),
    ("one output is small", (72.0, 20.0), 0.0, ("the small output is learned", "late: aligns badly until then")),
    ("outputs are correlated", (78.0, 22.0), 45.0, ("their difference is learned", "late: aligns badly until then")),
)


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 290, "The errors of two outputs: equal, unequal and correlated")
    for i, (title, (long, short), degrees, says) in enumerate(PANELS):
        x, y = 130 + 260 * i, 135
        canvas.text((x, 18), title, size=15, bold=True)
        canvas.arrow([(x - 95, y), (x + 98, y)], colour="muted", width=1)
        canvas.arrow([(x, y + 88), (x, y - 92)], colour="muted", width=1)
        canvas.text((x + 66, y + 82), "error 1 →", size=11, colour="muted")
        canvas.text((x + 10, y - 88), "↑ error 2", size=11, colour="muted", anchor="start")
        canvas.ellipse((x, y), (long, short), degrees, colour="forward", fill="cool")
        turn = math.radians(degrees)
        canvas.arrow([(x, y), (x + long * math.cos(turn), y - long * math.sin(turn))], colour="good", width=2.4)
        canvas.arrow([(x, y), (x - short * math.sin(turn), y - short * math.cos(turn))], colour="error", width=2.4)
        canvas.lines((x, 258), says, size=13, colour="muted")
    return canvas
