"""Backprop, feedback alignment and direct feedback alignment, side by side."""

from __future__ import annotations

from itertools import pairwise

from tools.pictures.canvas import Canvas

LAYERS = (("x", 330), ("h₁", 245), ("h₂", 160), ("ŷ", 75))


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 400, "Backprop, feedback alignment and direct feedback alignment, side by side")
    for name, left, says, sequence in (
        ("Backprop", 130, "down through the weights", ("W₃ᵀ", "W₂ᵀ")),
        ("Feedback alignment", 390, "down through random matrices", ("B₃", "B₂")),
        ("Direct feedback alignment", 650, "straight to every layer", ()),
    ):
        canvas.text((left, 18), name, size=16, bold=True)
        _network(canvas, left - 40)
        canvas.text((left, 385), says, size=13, colour="muted")
        canvas.dot((left + 62, 75), 15, colour="error", hollow=True)
        canvas.text((left + 62, 75), "e", size=15, colour="error")
        for label, (_, above), (_, below) in zip(sequence, LAYERS[:1:-1], LAYERS[2:0:-1], strict=False):
            dashed = label.startswith("B")
            canvas.arrow([(left - 22, above + 18), (left - 22, below - 19)], colour="error", dashed=dashed)
            canvas.text((left - 13, (above + below) / 2), label, colour="error", anchor="start")
        canvas.arrow([(left + 46, 75), (left + 6, 75)], colour="error")
        if not sequence:
            for label, (_, y), bend in (("F₂", LAYERS[2], 56), ("F₁", LAYERS[1], 68)):
                canvas.arrow([(left + bend, 90), (left + bend, y), (left + 6, y)], colour="error", dashed=True)
                canvas.text((left + 36, y - 13), label, colour="error")
    return canvas


def _network(canvas: Canvas, x: float) -> None:
    """Draw the layers and the way up."""
    for name, y in LAYERS:
        canvas.box((x, y), (88, 34), (name,), text=16)
    for i, ((_, below), (_, above)) in enumerate(pairwise(LAYERS), start=1):
        canvas.arrow([(x - 20, below - 18), (x - 20, above + 19)], colour="forward")
        canvas.text((x - 29, (below + above) / 2), f"W{'₀₁₂₃'[i]}", colour="forward", anchor="end")
