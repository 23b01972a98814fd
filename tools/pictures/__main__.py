"""Write every picture into docs/figures/."""

from __future__ import annotations

from pathlib import Path

from tools.pictures import (
    align_then_memorise,
    conditioning,
    order_parameters,
    rewired_graph,
    rule_chart,
    shared_feedback,
    three_rules,
    three_steps,
    which_minimum,
    why_not_convolutions,
)

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
PICTURES = {
    "three-rules": three_rules.draw,
    "rewired-graph": rewired_graph.draw,
    "three-steps": three_steps.draw,
    "rule-chart": rule_chart.draw,
    "why-not-convolutions": why_not_convolutions.draw,
    "conditioning": conditioning.draw,
    "order-parameters": order_parameters.draw,
    "shared-feedback": shared_feedback.draw,
    "align-then-memorise": align_then_memorise.draw,
    "which-minimum": which_minimum.draw,
}


def main() -> None:
    """Draw and write."""
    for name, draw in PICTURES.items():
        (FIGURES / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
