"""Convolutions: how well they can align with feedback, and feedback that fits them."""

from feedalign.extras import needs
from feedalign.geometry import Array, Geometry, Offset

with needs("theory", __name__):
    from feedalign.theory.convolution.alignability import (
        Match,
        alignability,
        best_match,
        channelwise_estimate,
        inner_products,
        nearest_kernel,
        random_estimate,
    )
    from feedalign.theory.convolution.fitting import mask_feedback, optimal_feedback, unrolled, weight_feedback

__all__ = [
    "Array",
    "Geometry",
    "Match",
    "Offset",
    "alignability",
    "best_match",
    "channelwise_estimate",
    "inner_products",
    "mask_feedback",
    "nearest_kernel",
    "optimal_feedback",
    "random_estimate",
    "unrolled",
    "weight_feedback",
]
