"""What is special to the experiment sharing, and that each part of its check can fail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, sharing

Refused = Callable[[Experiment, xr.Dataset], set[int]]

GRADIENT, RECOVERY = range(2)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("sharing")


def test_the_result_has_named_dimensions_and_nothing_missing(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"regions": 2, "variant": 4, "seed": 2, "layer": 3, "weight_layer": 2}
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_sharing_lowers_the_bound_of_random_feedback(tiny: xr.Dataset) -> None:
    assert (tiny.alignability.sel(variant="random").diff("regions") > 0).all()


@pytest.mark.parametrize(
    "config", [config for presets in (sharing.CONFIGS, *sharing.ON_DATASET.values()) for config in presets.values()]
)
def test_each_step_of_sharing_changes_a_layer_between_two_feedback_points(config: sharing.Config) -> None:
    side = config.net.image_size or 8  # the digits keep their 8 × 8 pixels
    positions = [math.ceil(side / math.prod(config.net.strides[: i + 1])) for i in range(len(config.net.strides))]
    for fewer, more in itertools.pairwise(config.regions):
        assert any(min(fewer, side) != min(more, side) for side in positions[1:])


def ideal() -> xr.Dataset:
    """Numbers as the claim describes them, and a little noise over seeds."""
    regions, variants, seeds = np.array([1, 2, 4]), list(sharing.VARIANTS), 5
    shape = (len(regions), len(variants), seeds)
    noise = 0.001 * np.random.default_rng(0).standard_normal(shape)
    rising = 0.1 * np.arange(3)[:, None, None] + noise
    alignability = np.broadcast_to(0.1 + rising, shape).copy()
    alignability[:, variants.index("channelwise")] = 0.3
    accuracy = 0.5 + rising
    accuracy[:, variants.index("backprop")] = 0.9
    accuracy[:, variants.index("readout-only")] = 0.4
    dims = ("regions", "variant", "seed")
    return xr.Dataset(
        {
            "test_accuracy": (dims, accuracy),
            "gradient_alignment": ((*dims, "layer"), np.repeat(rising[..., None], 3, axis=-1)),
            "alignability": ((*dims, "weight_layer"), np.repeat(alignability[..., None], 2, axis=-1)),
        },
        coords={"regions": regions, "variant": variants, "layer": [1, 2, 3], "weight_layer": [2, 3]},
    )


def gradients_alike(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[{"regions": 4}] = dataset.gradient_alignment.sel(regions=1)


def no_better(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[{"variant": "random"}] = 0.5


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [(gradients_alike, {GRADIENT}), (no_better, {RECOVERY})]
