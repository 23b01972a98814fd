"""Deep linear networks under direct feedback alignment, in matrices of the size of the output."""

from feedalign.extras import needs

with needs("theory", __name__):
    from feedalign.theory.linear.network import (
        Run,
        State,
        conditioner,
        draw_feedback,
        first_steps,
        population,
        residuals,
        train,
    )

__all__ = [
    "Run",
    "State",
    "conditioner",
    "draw_feedback",
    "first_steps",
    "population",
    "residuals",
    "train",
]
