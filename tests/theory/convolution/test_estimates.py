"""Estimates of the alignability of a convolutional layer, and where they end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.cases.geometries import channelwise, feedback

from feedalign.theory import convolution
from feedalign.theory.convolution import Geometry

LAYERS = [
    Geometry((32, 16, 16), 64, stride=(2, 2), padding=(1, 1)),
    Geometry((64, 8, 8), 64, stride=(2, 2), padding=(1, 1)),
    Geometry((16, 16, 16), 32, kernel_size=(5, 5), padding=(2, 2)),
    Geometry((32, 8, 8), 32, padding=(1, 1)),
    Geometry((16, 8, 8), 32, padding=(1, 1), regions=(2, 2)),
    Geometry((16, 8, 8), 32, padding=(1, 1), regions=(8, 8)),
]


@pytest.mark.parametrize("geometry", LAYERS, ids=range(len(LAYERS)))
def test_the_estimate_for_random_feedback(geometry: Geometry) -> None:
    """Within 4 %, measured −0.5 to 2.6 %: a space of products is not quite as random as that."""
    found = convolution.best_match(*feedback(geometry, 10), geometry).alignment
    assert found == pytest.approx(convolution.random_estimate(geometry, 10), rel=0.04)


def test_the_estimate_for_random_feedback_approaches_the_short_form() -> None:
    geometry = LAYERS[0]
    sizes = math.sqrt(math.prod(geometry.in_shape) * math.prod(geometry.out_shape))
    short = (math.sqrt(geometry.taps) + 10) / sizes
    assert convolution.random_estimate(geometry, 10) == pytest.approx(short, rel=1e-3)


@pytest.mark.parametrize("geometry", LAYERS, ids=range(len(LAYERS)))
def test_channelwise_feedback_has_its_closed_form_whatever_the_alignment_matrix(geometry: Geometry) -> None:
    F_out, F_in = channelwise(geometry)
    expected = convolution.channelwise_estimate(geometry)
    assert convolution.best_match(F_out, F_in, geometry).alignment == pytest.approx(expected, abs=1e-12)
    A = np.random.default_rng(1).standard_normal((10, 10))
    nearest = convolution.nearest_kernel(F_out @ A, F_in, geometry)
    dot, ww, tt = convolution.inner_products(nearest, F_out @ A, F_in, geometry)
    assert dot / math.sqrt(ww * tt) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("groups", [2, 4, 16])
def test_with_groups_the_closed_form_for_channelwise_feedback_is_a_lower_bound(groups: int) -> None:
    """At 16 channels and 3 outputs; the fewer channels a group has, the more one alignment matrix can favour it."""
    geometry = Geometry((16, 8, 8), 16, padding=(1, 1), groups=groups)
    found = convolution.best_match(*channelwise(geometry, 3), geometry).alignment
    assert found > convolution.channelwise_estimate(geometry)
    assert found < math.sqrt(geometry.connected)


def test_where_the_estimate_for_random_feedback_ends() -> None:
    """One channel and few positions: eigenvalues of so small matrices are not at the edge of their law yet."""
    geometry = Geometry((1, 4, 4), 1, padding=(1, 1))
    found = np.mean([convolution.best_match(*feedback(geometry, 2, s), geometry).alignment for s in range(20)])
    assert found / convolution.random_estimate(geometry, 2) == pytest.approx(0.8, abs=0.05)  # measured: 0.796
