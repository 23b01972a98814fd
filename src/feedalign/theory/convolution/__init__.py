"""Convolutions: how well they can align with feedback, and feedback that fits them.

Each file is loaded when one of its names is first used, so that `inner_products` needs no scipy.
"""

from typing import TYPE_CHECKING, Any

import lazy_loader

from feedalign.checks import Array
from feedalign.extras import needs
from feedalign.geometry import Geometry, Offset

if TYPE_CHECKING:
    from feedalign.theory.convolution.estimates import channelwise_estimate, random_estimate
    from feedalign.theory.convolution.fitting import mask_feedback, optimal_feedback, weight_feedback
    from feedalign.theory.convolution.matching import Match, alignability, best_match
    from feedalign.theory.convolution.overlaps import channel_products, inner_products, nearest_kernel
    from feedalign.theory.convolution.unrolling import unrolled

_found, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "estimates": ["channelwise_estimate", "random_estimate"],
        "fitting": ["mask_feedback", "optimal_feedback", "weight_feedback"],
        "matching": ["Match", "alignability", "best_match"],
        "overlaps": ["channel_products", "inner_products", "nearest_kernel"],
        "unrolling": ["unrolled"],
    },
)


def __getattr__(name: str) -> Any:
    with needs("theory", __name__):
        return _found(name)


__all__ = [
    "Array",
    "Geometry",
    "Match",
    "Offset",
    "alignability",
    "best_match",
    "channel_products",
    "channelwise_estimate",
    "inner_products",
    "mask_feedback",
    "nearest_kernel",
    "optimal_feedback",
    "random_estimate",
    "unrolled",
    "weight_feedback",
]
