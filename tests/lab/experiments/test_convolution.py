"""What is special to the experiment convolution, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, convolution
from feedalign.lab.experiments.common.convnets import VARIANTS, measured_run, recovery

Refused = Callable[[Experiment, xr.Dataset], set[int]]

NEAR_ZERO, SPARSE, SHARED, STRUCTURE, ALIGNED, FIXED, LEARNED = range(7)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("convolution")


def test_every_net_has_the_runs_of_its_part_of_the_table(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {"net": 4, "variant": len(VARIANTS), "seed": 2, "layer": 3, "weight_layer": 2}
    ran = tiny.test_accuracy.notnull()
    assert ran.sel(net=convolution.LARGER).all()
    of_small = ran.sel(net=list(convolution.SMALL)).all(("net", "seed"))
    missing = {variant for variant in VARIANTS if not of_small.sel(variant=variant)}
    assert missing == {"mask", "weights", "learned", "learned, smooth"}
    for values in tiny.data_vars.values():
        assert not (np.isnan(values) & ran).any()
        assert not (values.notnull() & ~ran).any()


def test_dense_layers_can_align_with_anything_and_training_respects_every_bound(tiny: xr.Dataset) -> None:
    bounds = tiny.alignability
    assert (bounds.sel(net="dense").fillna(1) == 1).all()
    assert not (abs(tiny.weight_alignment) > bounds).any()
    of_random = bounds.sel(variant="random")
    assert (of_random.sel(net="locally connected") >= of_random.sel(net="convolutional")).all()
    assert (of_random.sel(net="locally connected") > of_random.sel(net="convolutional")).any()
    # Every seed has feedback of its own, which alone decides the bound.
    assert float(of_random.sel(net="convolutional", seed=0)[0]) != float(of_random.sel(net="convolutional", seed=1)[0])


def test_nets_of_one_seed_begin_as_one_function_with_one_feedback(tiny_config: Callable[[str], Any]) -> None:
    untrained = replace(tiny_config("convolution"), lr=0.0)
    kinds = [
        measured_run(untrained, untrained.small, connected, "random", 3)
        for connected in ("dense", "locally connected", "convolutional", 2)
    ]
    for other in kinds[1:]:
        assert float(other.test_accuracy) == float(kinds[0].test_accuracy)
        # In one function and feedback, what differs is how far weights could align, not how far they do.
        np.testing.assert_allclose(other.gradient_alignment, kinds[0].gradient_alignment, atol=1e-6)
        np.testing.assert_allclose(other.weight_alignment, kinds[0].weight_alignment, atol=1e-6)
    bounds = [float(kind.alignability.sel(weight_layer=2)) for kind in kinds]
    assert 1 == bounds[0] > bounds[1] == bounds[3] > bounds[2]  # of 2 × 2 positions


def ideal() -> xr.Dataset:
    """Numbers as the claim describes them, and a little noise over seeds."""
    nets, variants = [*convolution.SMALL, convolution.LARGER], list(VARIANTS)
    accuracy = {"backprop": 0.65, "readout-only": 0.45, "random": 0.53, "learned": 0.63, "learned, smooth": 0.64}
    bounds = {"dense": 1.0, "locally connected": 0.4, "convolutional": 0.1, convolution.LARGER: 0.1}
    noise = 0.002 * np.random.default_rng(0).standard_normal((len(nets), len(variants), 3, 1))
    alignability = np.ones_like(noise) * np.array([bounds[str(net)] for net in nets])[:, None, None, None]
    alignability[2:, variants.index("channelwise")] = 0.3
    gradient = 0.02 + np.zeros_like(noise) + noise
    gradient[:, variants.index("channelwise")] += 0.1
    final = np.array([accuracy.get(variant, 0.59) for variant in variants])[None, :, None] + noise[..., 0]
    final[:, variants.index("optimal")] = 0.4
    dims = ("net", "variant", "seed")
    return xr.Dataset(
        {
            "test_accuracy": (dims, final),
            "gradient_alignment": ((*dims, "layer"), np.repeat(gradient, 3, axis=-1)),
            "weight_alignment": ((*dims, "weight_layer"), np.repeat(0.3 * alignability, 2, axis=-1)),
            "alignability": ((*dims, "weight_layer"), np.repeat(alignability * (1 + noise), 2, axis=-1)),
        },
        coords={"net": nets, "variant": variants, "layer": [1, 2, 3], "weight_layer": [2, 3]},
    )


def test_what_the_claim_describes_is_supported(refused: Refused) -> None:
    assert refused(convolution, ideal()) == set()
    assert "smooth" in convolution.check(ideal())[LEARNED].claim


def at(dataset: xr.Dataset, net: str, variant: str) -> dict[str, str]:
    return {"net": net, "variant": variant}


def align_anyway(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[at(dataset, convolution.LARGER, "random")] += 0.2


def connect(dataset: xr.Dataset) -> None:
    dataset.alignability.loc[at(dataset, "locally connected", "random")] = 1.0


def share_for_nothing(dataset: xr.Dataset) -> None:
    dataset.alignability.loc[at(dataset, "convolutional", "random")] = 0.5


def lose_structure(dataset: xr.Dataset) -> None:
    for values in (dataset.alignability, dataset.gradient_alignment):
        for net in ("convolutional", convolution.LARGER):
            values.loc[at(dataset, net, "channelwise")] = values.loc[at(dataset, net, "random")]


def learn_little(dataset: xr.Dataset) -> None:
    for variant in ("channelwise", "smooth", "mask", "learned", "learned, smooth"):
        dataset.test_accuracy.loc[at(dataset, convolution.LARGER, variant)] = 0.55


def backprop_gains_nothing(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[at(dataset, convolution.LARGER, "readout-only")] = 0.9


def lose_one(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[{**at(dataset, convolution.LARGER, "random"), "layer": 1}][0] = np.nan


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (align_anyway, {NEAR_ZERO, ALIGNED}),
    (connect, {SPARSE}),
    (share_for_nothing, {SHARED, STRUCTURE}),
    (lose_structure, {STRUCTURE, ALIGNED}),
    (learn_little, {FIXED, LEARNED}),
    (backprop_gains_nothing, {FIXED, LEARNED}),
    (lose_one, {NEAR_ZERO, ALIGNED}),
]


def test_recovery_is_zero_for_the_readout_and_one_for_backprop() -> None:
    means = recovery(ideal()).mean("seed")
    np.testing.assert_allclose(means.sel(variant="readout-only"), 0, atol=1e-12)
    np.testing.assert_allclose(means.sel(variant="backprop"), 1, atol=1e-12)
