"""Which rule for which model."""

from __future__ import annotations

from tools.pictures.canvas import Canvas

ROWS = (
    (("fully connected",), ("fa.DFA(model)",), ("outputs correlated or unequal?", "diagnose; ConditionedDFA")),
    (("convolutional",), ("fa.DirectKolenPollack(model)",), ("may know the weights’ signs?", "SignSymmetry")),
    (
        ("Transformer",),
        ("fa.DFA(model, blocks,", "feedback=Shared())"),
        ("large vocabulary?", "error_at=“lm_head.input”"),
    ),
    (("recurrent",), ("fa.DFA(model, points=cell)",), ("error may go back in time?", "take the whole layer")),
    (("a device or", "a brain"), ("fa.DRTP, DFA(error=“sign”)",), ("something else?", "write your own rule")),
)


def draw() -> Canvas:
    """Return the picture."""
    canvas = Canvas(780, 470, "A chart that leads from your model to a rule")
    canvas.box((75, 225), (130, 78), ("What is", "your model?"), fill="cool", edge="forward", text=15)
    canvas.text((243, 18), "your model", size=13, colour="muted")
    canvas.text((430, 18), "start with", size=13, colour="muted")
    canvas.text((660, 18), "and then ask", size=13, colour="muted")
    for i, (kind, rule, then) in enumerate(ROWS):
        y = 65 + 80 * i
        canvas.arrow([(141, 225), (158, 225), (158, y), (178, y)], colour="forward")
        canvas.box((243, y), (126, 56), kind, text=14)
        canvas.arrow([(308, y), (326, y)], colour="forward")
        canvas.box((430, y), (204, 56), rule, fill="soft", edge="error", text=13)
        canvas.line([(534, y), (552, y)], colour="muted", dashed=True)
        canvas.lines((662, y), then, size=12.5, colour="ink")
    controls = "always beside it, as controls: fa.Backprop and fa.ReadoutOnly (in Transformers fa.Frozen)"
    canvas.text((390, 450), controls, size=13, colour="muted")
    return canvas
