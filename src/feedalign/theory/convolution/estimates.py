"""Alignabilities that follow from the shape of a layer, without its feedback."""

from __future__ import annotations

import math

from feedalign.checks import instance_of, whole_number
from feedalign.geometry import Geometry


def random_estimate(geometry: Geometry, outputs: int) -> float:
    r"""Estimate the alignability of a layer under random feedback from its shape alone.

    .. math:: \sqrt{a(1-b)} + \sqrt{b(1-a)}, \quad a = \frac{\#\mathrm{taps}}{n_l n_{l-1}}, \quad
        b = \frac{C^2}{n_l n_{l-1}}

    and 1 if a + b ≥ 1: the largest cosine between two random subspaces of these dimensions, as the dimensions grow.
    Where a and b are small, as in every convolution of some size, the estimate is (√#taps + C) / √(n_l n_{l−1}).

    Args:
        geometry: of the layer.
        outputs: C.

    Raises:
        ArgumentError: geometry is no `Geometry`, or outputs is no whole number of at least one.
    Source: Wachter (1980), "The limiting empirical measure of multiple discriminant ratios".
    """
    instance_of("geometry", geometry, Geometry)
    outputs = whole_number("outputs", outputs, 1)
    size = math.prod(geometry.in_shape) * math.prod(geometry.out_shape)
    a, b = geometry.taps / size, outputs**2 / size
    return 1.0 if a + b >= 1 else math.sqrt(a * (1 - b)) + math.sqrt(b * (1 - a))


def channelwise_estimate(geometry: Geometry) -> float:
    """Return the alignability for feedback that is constant over the positions of a channel.

    It is √(fraction of position pairs connected). With one group it is exact, and every alignment matrix reaches it.
    With more groups it is a lower bound; pairs of channels in different groups count as not connected.

    Raises:
        ArgumentError: geometry is no `Geometry`.
    """
    instance_of("geometry", geometry, Geometry)
    return math.sqrt(geometry.connected / geometry.groups)
