"""A residual stream under a feedback matrix for each block, and under one matrix for all blocks."""

from __future__ import annotations

from tools.pictures.canvas import Canvas

BLOCKS = (265.0, 195.0, 125.0)
TOP, BOTTOM = 60.0, 325.0


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 390, "A residual stream under a feedback matrix for each block, and under one for all blocks")
    for title, left, colours, names, says in (
        ("a matrix for each block", 60.0, ("good", "forward", "error"), ("F₁", "F₂", "F₃"),
         "the readout cannot turn to all of them"),
        ("one matrix for all blocks", 440.0, ("error",) * 3, ("F", "F", "F"),
         "the readout can turn to it"),
    ):  # fmt: skip
        stream = left + 90
        canvas.text((left + 140, 18), title, size=15, bold=True)
        canvas.arrow([(stream, BOTTOM), (stream, TOP + 19)], colour="ink", width=3)
        canvas.text((stream, BOTTOM + 14), "embedding", size=13)
        canvas.box((stream, TOP), (110, 34), ("readout",), text=14)
        canvas.dot((left + 250, TOP), 15, colour="error", hollow=True)
        canvas.text((left + 250, TOP), "e", size=15, colour="error")
        canvas.arrow([(left + 147, TOP), (left + 233, TOP)], colour="muted")
        for i, (y, colour, name) in enumerate(zip(BLOCKS, colours, names, strict=True), start=1):
            canvas.box((left + 12, y + 14), (72, 32), (f"block {i}",), text=13)
            canvas.line([(stream, y + 36), (left + 12, y + 36), (left + 12, y + 30)], colour="muted", width=1.2)
            canvas.arrow([(left + 12, y - 2), (left + 12, y - 8), (stream - 7, y - 8)], colour="muted", width=1.2)
            canvas.dot((stream, y - 8), 6, hollow=True)
            canvas.text((stream, y - 8), "+", size=12)
            bend = left + 235 + 13 * (3 - i)
            start = TOP + (15 if bend < left + 262 else 10)
            canvas.arrow([(bend, start), (bend, y - 8), (stream + 9, y - 8)], colour=colour, dashed=True)
            canvas.text((left + 165, y - 21), name, size=14, colour=colour)
        canvas.text((left + 140, 370), says, size=13, colour="muted")
    return canvas
