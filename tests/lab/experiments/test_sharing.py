"""The experiment sharing: what it trains and measures, and that each part of its check can fail."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import sharing
from feedalign.lab.experiments.convnet_runs import Net

TINY = replace(
    sharing.CONFIGS["quick"], net=Net(0, (2, 3, 3), (2, 1, 1), epochs=1), train_images=128, seeds=2, probe=50
)
(BOUND, CHANNELWISE, GRADIENT, RECOVERY) = range(4)


def run(config: sharing.Config = TINY) -> xr.Dataset:
    return sharing.run(config, lambda done, total: None)


@pytest.fixture(scope="module")
def tiny() -> xr.Dataset:
    return run()


def test_the_result_has_named_dimensions_and_nothing_missing(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"regions": 3, "rule": 4, "seed": 2, "layer": 3, "weight_layer": 2}
    assert all(np.isfinite(values).all() for values in tiny.data_vars.values())


def test_sharing_lowers_the_bound_of_random_feedback_only(tiny: xr.Dataset) -> None:
    bounds = tiny.alignability
    assert (bounds.sel(rule="random").diff("regions") > 0).all()
    np.testing.assert_allclose(bounds.sel(rule="channelwise").diff("regions"), 0, atol=1e-12)
    assert (abs(tiny.weight_alignment) < bounds).all()


def test_the_same_config_gives_the_same_bits(tiny: xr.Dataset) -> None:
    xr.testing.assert_identical(run(), tiny)


def test_the_figure_can_be_saved_and_its_caption_counts(tiny: xr.Dataset) -> None:
    buffer = io.BytesIO()
    sharing.plot(tiny).savefig(buffer, format="svg")
    assert buffer.getvalue().startswith(b"<?xml")
    assert "over 2 seeds" in sharing.caption(tiny)


def ideal() -> xr.Dataset:
    """Numbers as the claim describes them, and a little noise over seeds."""
    regions, methods, seeds = np.array([1, 2, 4]), list(sharing.METHODS), 5
    shape = (len(regions), len(methods), seeds)
    noise = 0.001 * np.random.default_rng(0).standard_normal(shape)
    rising = 0.1 * np.arange(3)[:, None, None] + noise
    alignability = np.broadcast_to(0.1 + rising, shape).copy()
    alignability[:, methods.index("channelwise")] = 0.3
    accuracy = 0.5 + rising
    accuracy[:, methods.index("bp")] = 0.9
    accuracy[:, methods.index("readout")] = 0.4
    dims = ("regions", "rule", "seed")
    return xr.Dataset(
        {
            "test_accuracy": (dims, accuracy),
            "gradient_alignment": ((*dims, "layer"), np.repeat(rising[..., None], 3, axis=-1)),
            "alignability": ((*dims, "weight_layer"), np.repeat(alignability[..., None], 2, axis=-1)),
        },
        coords={"regions": regions, "rule": methods, "layer": [1, 2, 3], "weight_layer": [2, 3]},
    )


def refused(dataset: xr.Dataset) -> set[int]:
    return {i for i, verdict in enumerate(sharing.check(dataset)) if not verdict.supported}


def test_what_the_claim_describes_is_supported() -> None:
    assert refused(ideal()) == set()


def level(dataset: xr.Dataset) -> None:
    dataset.alignability.loc[{"rule": "random", "regions": 4}] = dataset.alignability.sel(rule="random", regions=2)


def channelwise_too(dataset: xr.Dataset) -> None:
    dataset.alignability.loc[{"rule": "channelwise", "regions": 1}] -= 0.1


def gradients_alike(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[{"regions": 4}] = dataset.gradient_alignment.sel(regions=1)


def no_better(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[{"rule": "random"}] = 0.5


@pytest.mark.parametrize(
    ("change", "expected"),
    [(level, {BOUND}), (channelwise_too, {CHANNELWISE}), (gradients_alike, {GRADIENT}), (no_better, {RECOVERY})],
)
def test_a_spoilt_result_is_not_supported(change: Callable[[xr.Dataset], None], expected: set[int]) -> None:
    dataset = ideal()
    change(dataset)
    assert refused(dataset) == expected


@pytest.mark.slow
def test_the_claim_is_supported_at_the_quick_preset() -> None:
    for verdict in sharing.check(run(sharing.CONFIGS["quick"])):
        assert verdict.supported, verdict
