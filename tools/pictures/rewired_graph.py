"""The graph that feedalign rewires: points, blocks, and the error that is handed to each point."""

from __future__ import annotations

from itertools import pairwise

from tools.pictures.canvas import Canvas

PATH = 150.0


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 290, "A network with two feedback points, cut into three blocks")
    for left, right, name in ((95, 285, "block of “1”"), (320, 510, "block of “3”"), (545, 640, "readout")):
        canvas.box(((left + right) / 2, PATH), (right - left, 92), fill="cool", edge="forward", radius=12)
        canvas.text(((left + right) / 2, PATH - 60), name, size=13, colour="forward")
    stages = ((145, "Linear"), (225, "Tanh"), (370, "Linear"), (450, "Tanh"), (592, "Linear"))
    for x, name in stages:
        canvas.box((x, PATH), (66, 38), (name,), text=13)
    canvas.text((45, PATH), "x", size=16)
    canvas.text((680, PATH), "ŷ", size=16)
    ends = [56, *(x for x, _ in stages), 672]
    for start, end in pairwise(ends):
        first, last = start + (34 if start > 56 else 0), end - (34 if end < 672 else 0)
        canvas.arrow([(first, PATH), (last - 2, PATH)], colour="forward")
    for x in (302, 527):
        canvas.line([(x, PATH - 75), (x, PATH + 60)], colour="error", dashed=True)
        canvas.text((x, PATH - 86), "cut", size=12, colour="error")
    canvas.dot((735, PATH), 17, colour="error", hollow=True)
    canvas.text((735, PATH), "e", size=15, colour="error")
    canvas.arrow([(691, PATH), (716, PATH)], colour="error")
    for x, name, level in ((284, "F₁", 262), (509, "F₃", 238)):
        start = 735 + (4 if level > 250 else -4)
        canvas.arrow([(start, PATH + 17), (start, level), (x, level), (x, PATH + 6)], colour="error")
        canvas.dot((x, PATH), 5, colour="error")
        canvas.text((x + 26, level - 11), name, size=14, colour="error")
    canvas.text((90, 252), "● feedback point", size=13, colour="error", anchor="start")
    canvas.text((390, 20), "forward: your model, unchanged", size=13, colour="forward")
    canvas.text((390, 282), "backward: the error goes to every point at once", size=13, colour="error")
    return canvas
