"""What every tutorial does: wrap a model, train it, measure it."""

from __future__ import annotations

from tools.pictures.canvas import Canvas

STEPS = (
    ("1  Wrap", "net = fa.DFA(model)", "one new line"),
    ("2  Train", "loss.backward()", "your own loop"),
    ("3  Measure", "fa.gradient_alignment(net, …)", "one cosine a layer"),
)


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 140, "Wrap a model, train it, measure it")
    for i, (name, code, says) in enumerate(STEPS):
        x = 130 + 260 * i
        canvas.box((x, 70), (232, 116))
        canvas.text((x, 32), name, size=16, bold=True, colour="error")
        canvas.text((x, 68), code, size=14)
        canvas.text((x, 102), says, size=13, colour="muted")
        if i:
            canvas.arrow([(x - 142, 70), (x - 118, 70)], colour="muted")
    return canvas
