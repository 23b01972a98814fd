"""What is special to the experiment sharing, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, sharing

Refused = Callable[[Experiment, xr.Dataset], set[int]]

BOUND, GRADIENT, RECOVERY = range(3)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("sharing")


def test_the_result_has_named_dimensions_and_nothing_missing(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"regions": 2, "variant": 4, "seed": 2, "layer": 3, "weight_layer": 2}
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_sharing_lowers_the_bound_of_random_feedback(tiny: xr.Dataset) -> None:
    assert (tiny.alignability.sel(variant="random").diff("regions") > 0).all()


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


def test_what_the_claim_describes_is_supported(refused: Refused) -> None:
    assert refused(sharing, ideal()) == set()


def level(dataset: xr.Dataset) -> None:
    dataset.alignability.loc[{"variant": "random", "regions": 4}] = dataset.alignability.sel(
        variant="random", regions=2
    )


def gradients_alike(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[{"regions": 4}] = dataset.gradient_alignment.sel(regions=1)


def no_better(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[{"variant": "random"}] = 0.5


@pytest.mark.parametrize(
    ("change", "expected"),
    [(level, {BOUND}), (gradients_alike, {GRADIENT}), (no_better, {RECOVERY})],
)
def test_a_spoilt_result_is_not_supported(
    change: Callable[[xr.Dataset], None], expected: set[int], refused: Refused
) -> None:
    dataset = ideal()
    change(dataset)
    assert refused(sharing, dataset) == expected
