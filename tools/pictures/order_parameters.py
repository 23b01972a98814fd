"""How the overlaps of a student unit and a teacher unit change while the student learns."""

from __future__ import annotations

import math

from tools.pictures.canvas import Canvas, Point

LENGTH = 120.0  # of a vector of length one
# What is said of a moment, the length of the student's unit, and its angle to the teacher's unit in degrees.
MOMENTS = (("at the start", 0.15, 90.0), ("while it learns", 0.8, 50.0), ("when it has learned", 1.0, 3.0))


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 220, "The student unit starts short, then grows and turns to the teacher unit: R rises to T")
    for i, (says, length, degrees) in enumerate(MOMENTS):
        origin = (60.0 + 260 * i, 160.0)
        overlap = length * math.cos(math.radians(degrees))
        canvas.text((origin[0] + 60, 24), says, bold=True)
        teacher, student = _end(origin, 1.0, 0.0), _end(origin, length, degrees)
        if i == 1:  # the shadow of one unit on the other
            canvas.line([student, (student[0], origin[1])], colour="muted", dashed=True)
            canvas.text((origin[0] + 0.5 * overlap * LENGTH, origin[1] + 16), "R", colour="error", bold=True)
            canvas.line([origin, (student[0], origin[1])], colour="error", width=5)
        canvas.arrow([origin, teacher], colour="forward", width=2.4)
        canvas.arrow([origin, student], colour="error", width=2.4)
        canvas.text((teacher[0] + 8, teacher[1]), "teacher w̃", colour="forward", anchor="start", size=13)
        canvas.text((student[0] + 6, student[1] - 12), "student w", colour="error", anchor="start", size=13)
        numbers = f"R = {overlap:.2f},  Q = {length**2:.2f},  T = 1.00"
        canvas.text((origin[0] + 60, 204), numbers, size=13, colour="muted")
    return canvas


def _end(origin: Point, length: float, degrees: float) -> Point:
    turn = math.radians(degrees)
    return origin[0] + LENGTH * length * math.cos(turn), origin[1] - LENGTH * length * math.sin(turn)
