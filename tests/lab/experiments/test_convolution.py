"""What is special to the experiment convolution, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import Experiment, convolution
from feedalign.lab.experiments.common.convnets import VARIANTS, Connected, NetConfig, Training, recovery
from feedalign.lab.experiments.common.grid import jobs_on_grid
from feedalign.lab.runs import compute_job

Refused = Callable[[Experiment, xr.Dataset], set[int]]

SPARSE, SHARED, SCATTERED, STRUCTURE, PARTED, LEARNED, ABOVE_FIXED = range(7)


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("convolution")


def test_every_run_is_measured(tiny: xr.Dataset) -> None:
    assert dict(tiny.sizes) == {
        "net": 3, "connected_seed": 2, "feedback": 2, "share": 2, "variant": len(VARIANTS), "seed": 2, "layer": 3,
        "weight_layer": 2,
    }  # fmt: skip
    for values in tiny.data_vars.values():
        assert values.notnull().all()


def test_the_first_draw_with_all_rows_in_place_is_the_run_of_the_variant(tiny: xr.Dataset) -> None:
    first = tiny.sel(feedback=0, share=0.0, drop=True)
    for name in ("test_accuracy", "gradient_alignment", "alignability"):
        assert first[f"scattered_{name}"].equals(tiny[name].sel(variant="channelwise", drop=True))


def test_draws_of_feedback_differ_and_so_do_the_places_of_their_rows(tiny: xr.Dataset) -> None:
    one, other = (tiny.scattered_alignability.sel(feedback=draw) for draw in (0, 1))
    assert (one.sel(share=1.0) != other.sel(share=1.0)).all()
    gradients = tiny.scattered_gradient_alignment
    assert (gradients.sel(feedback=0) != gradients.sel(feedback=1)).all()


def test_dense_layers_can_align_with_anything_and_training_respects_every_bound(tiny: xr.Dataset) -> None:
    for kind in ("", "scattered_", "connected_"):
        assert not (abs(tiny[f"{kind}weight_alignment"]) > tiny[f"{kind}alignability"]).any()
    bounds = tiny.connected_alignability
    assert (bounds.sel(net="dense") == 1).all()
    assert (bounds.sel(net="locally connected") >= bounds.sel(net="convolutional")).all()
    assert (bounds.sel(net="locally connected") > bounds.sel(net="convolutional")).any()
    # Every seed has feedback of its own, which alone decides the bound.
    assert float(bounds.sel(net="convolutional")[0, 0]) != float(bounds.sel(net="convolutional")[1, 0])


def measured(config: convolution.Config, connected: Connected, variant: str, scattered: float = 0.0) -> xr.Dataset:
    """The run of the first seed."""
    (job,) = jobs_on_grid(Training, config, connected=[connected], variant=[variant], scattered=[scattered], seed=[0])
    return compute_job(job)


def test_nets_of_one_seed_begin_as_one_function_with_one_feedback(tiny_config: Callable[[str], Any]) -> None:
    untrained = replace(tiny_config("convolution"), lr=0.0)
    kinds = [measured(untrained, connected, "random") for connected in (*convolution.NETS, 2)]
    for other in kinds[1:]:
        assert float(other.test_accuracy) == float(kinds[0].test_accuracy)
        # In one function and feedback, what differs is how far weights could align, not how far they do.
        np.testing.assert_allclose(other.gradient_alignment, kinds[0].gradient_alignment, atol=1e-6)
        np.testing.assert_allclose(other.weight_alignment, kinds[0].weight_alignment, atol=1e-6)
    bounds = [float(kind.alignability.sel(weight_layer=2)) for kind in kinds]
    assert 1 == bounds[0] > bounds[1] == bounds[3] > bounds[2]  # of 2 × 2 positions


def test_scattering_lowers_the_bound_of_the_convolutional_net_alone(tiny_config: Callable[[str], Any]) -> None:
    config = replace(tiny_config("convolution"), net=NetConfig(16, (8, 16, 16), (1, 2, 2), epochs=1))
    kept, half, moved = (
        measured(config, "convolutional", "channelwise", share).alignability for share in (0.0, 0.5, 1.0)
    )
    assert (moved < half).all()
    assert (half < kept).all()
    dense = measured(config, "dense", "channelwise", 1.0)
    assert (dense.alignability == 1).all()


def ideal() -> xr.Dataset:
    """Numbers as the claim describes them, and a little noise over seeds."""
    variants, shares, feedbacks, seeds, layers = list(VARIANTS), [0.0, 0.5, 1.0], 3, 6, 3
    rng = np.random.default_rng(0)
    accuracies = {"backprop": 0.65, "readout-only": 0.45, "random": 0.53, "mask": 0.4, "learned": 0.63}
    bounds = {"random": 0.05, "channelwise": 0.3, "mask": 0.7}
    aligned = {"random": 0.02, "channelwise": 0.12}
    scattered = np.linspace(0.25, 0.1, len(shares))[:, None, None]
    # Draws of feedback differ among themselves, which does not count: only the places of rows do.
    drawn = np.array([0.0, 0.05, -0.05])[:, None, None, None]
    connected = np.array([0.5, 0.1, 0.02])[:, None, None]
    noise = {
        dims: 0.002 * rng.standard_normal(dims)
        for dims in [(10, seeds, layers), (feedbacks, len(shares), seeds, layers), (3, 4, 3)]
    }
    moved = noise[feedbacks, len(shares), seeds, layers]

    def by_variant(values: dict[str, float], default: float) -> np.ndarray[Any, Any]:
        return (
            np.array([values.get(variant, default) for variant in variants])[:, None, None] + noise[10, seeds, layers]
        )

    return xr.Dataset(
        {
            "test_accuracy": (("variant", "seed"), by_variant(accuracies, 0.55)[..., 0]),
            "gradient_alignment": (("variant", "seed", "layer"), by_variant(aligned, 0.08)),
            "alignability": (("variant", "seed", "weight_layer"), by_variant(bounds, 0.2)[..., 1:]),
            "scattered_gradient_alignment": (
                ("feedback", "share", "seed", "layer"), 0.4 * scattered + drawn + moved,
            ),
            "scattered_alignability": (
                ("feedback", "share", "seed", "weight_layer"), scattered - drawn + moved[..., 1:],
            ),
            "connected_gradient_alignment": (("net", "connected_seed", "layer"), connected + noise[3, 4, 3]),
        },
        coords={
            "variant": variants, "share": shares, "net": list(convolution.NETS), "layer": [1, 2, 3],
            "weight_layer": [2, 3],
        },
    )  # fmt: skip


def test_what_the_claim_describes_is_supported(refused: Refused) -> None:
    assert refused(convolution, ideal()) == set()


def connect_for_nothing(dataset: xr.Dataset) -> None:
    dataset.connected_gradient_alignment.loc[{"net": "locally connected"}] += 0.5


def share_for_nothing(dataset: xr.Dataset) -> None:
    dataset.connected_gradient_alignment.loc[{"net": "convolutional"}] += 0.2


def align_wherever_rows_are(dataset: xr.Dataset) -> None:
    """The bound falls, but gradient alignment only varies."""
    noise = 0.03 * np.random.default_rng(1).standard_normal(dataset.scattered_gradient_alignment.shape)
    dataset["scattered_gradient_alignment"] = dataset.scattered_gradient_alignment * 0 + 0.12 + noise


def keep_the_bound(dataset: xr.Dataset) -> None:
    """Scattering moves nothing at all, so there is no correlation."""
    for name in ("alignability", "gradient_alignment"):
        dataset[f"scattered_{name}"] = dataset[f"scattered_{name}"] * 0 + dataset[f"scattered_{name}"].sel(share=0)


def align_anyway(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[{"variant": "random"}] += 0.2


def learn_from_the_connections(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[{"variant": "mask"}] = 0.55


def one_structure_repairs_all(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[{"variant": "smooth"}] = 0.64


def learn_little(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[{"variant": "learned"}] = 0.54


def backprop_gains_nothing(dataset: xr.Dataset) -> None:
    dataset.test_accuracy.loc[{"variant": "readout-only"}] = 0.9


def lose_one(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[{"variant": "channelwise", "layer": 1}][0] = np.nan
    dataset.scattered_gradient_alignment.loc[{"share": 0, "feedback": 0, "layer": 1}][0] = np.nan


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (connect_for_nothing, {SPARSE}),
    (share_for_nothing, {SHARED}),
    (align_wherever_rows_are, {SCATTERED}),
    (keep_the_bound, {SCATTERED}),
    (align_anyway, {STRUCTURE}),
    (learn_from_the_connections, {PARTED}),
    (one_structure_repairs_all, {ABOVE_FIXED}),
    (learn_little, {LEARNED, ABOVE_FIXED}),
    (backprop_gains_nothing, {PARTED, LEARNED, ABOVE_FIXED}),
    (lose_one, {SCATTERED, STRUCTURE}),
]


def test_the_partial_correlation_does_not_see_what_nets_and_draws_differ_in() -> None:
    dataset, moved = ideal(), ideal()
    offset = xr.DataArray(np.random.default_rng(2).standard_normal((3, 6)), dims=("feedback", "seed"))
    moved["scattered_gradient_alignment"] = moved.scattered_gradient_alignment + offset
    moved["scattered_alignability"] = moved.scattered_alignability * np.exp(offset)
    for over in (("share", "feedback"), ("share", "feedback", "seed")):
        before, after = (convolution.partial_correlation(each, *over) for each in (dataset, moved))
        assert (before > 0.9).all()
        xr.testing.assert_allclose(before, after)


def test_recovery_is_zero_for_the_readout_and_one_for_backprop() -> None:
    means = recovery(ideal()).mean("seed")
    np.testing.assert_allclose(means.sel(variant="readout-only"), 0, atol=1e-12)
    np.testing.assert_allclose(means.sel(variant="backprop"), 1, atol=1e-12)
