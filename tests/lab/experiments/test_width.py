"""Width and alignment: the result's shape, slopes, and what the check makes of made-up results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import width


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("width")


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    expected = {
        "rule": 3, "init_scale": 2, "width": 2, "draw": 2, "network": 2, "pair": 1, "layer": 2, "weight_layer": 2,
    }  # fmt: skip
    assert {dim: n for dim, n in tiny.sizes.items() if dim != "epoch"} == expected
    assert tiny.width.values.tolist() == [4, 8]
    assert all(values.notnull().all() for values in tiny.data_vars.values())


def test_every_job_has_layers_of_one_width(tiny_config: Callable[[str], width.Config]) -> None:
    jobs = width.jobs(tiny_config("width"))
    assert {job.hidden for job in jobs} == {(4, 4), (8, 8)}
    assert {job.init_scale for job in jobs} == {1.0, 0.1}


def test_smaller_initial_weights_are_smaller(tiny: xr.Dataset) -> None:
    """At the start nothing is learned, so the cosines are the same at both scales; the networks are not."""
    start = tiny.isel(epoch=0).sel(rule="dfa")
    large, small = (start.sel(init_scale=scale) for scale in (1.0, 0.1))
    np.testing.assert_allclose(small.weight_alignment, large.weight_alignment, atol=1e-6)
    assert not small.gradient_alignment.equals(large.gradient_alignment)


def test_a_slope_is_the_rise_for_a_doubling() -> None:
    widths = np.array([16, 32, 128])
    values = xr.DataArray([3.0 + 0.5 * np.log2(widths), [1.0, 1.0, 1.0]], dims=("draw", "width"),
                          coords={"width": widths})  # fmt: skip
    np.testing.assert_allclose(width.slopes(values), [0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(width.slopes(values.assign_coords(width=4 * widths)), [0.5, 0.0], atol=1e-12)
    assert np.isnan(width.slopes(values.where(values.width > 16))).all()


# What the check is to see, made by hand.
WIDTHS, DRAWS = (16, 64, 256), 4
SMALL, LARGE, ALIKE, GAIN = range(4)


def ideal() -> xr.Dataset:
    rng = np.random.default_rng(0)
    sizes = {"rule": 3, "init_scale": 2, "width": len(WIDTHS), "draw": DRAWS, "epoch": 2}
    own = {
        "gradient_alignment": {"layer": 2, "network": 2},
        "overlap": {"pair": 1},
        "test_accuracy": {"network": 2},
    }
    dataset = xr.Dataset(
        {name: ((*sizes, *dims), np.zeros((*sizes.values(), *dims.values()))) for name, dims in own.items()},
        coords={"rule": list(width.RULES), "init_scale": [1.0, 0.1], "width": list(WIDTHS), "epoch": [0.0, 20.0]},
    )
    for i in range(len(WIDTHS)):
        dataset.gradient_alignment[0, 0, i] = 0.7 - 0.05 * i
        dataset.gradient_alignment[0, 1, i] = 0.7 + 0.05 * i
        dataset.overlap[0, 0, i] = 0.7 - 0.2 * i
        dataset.overlap[0, 1, i] = 0.99
        for rule, accuracies in enumerate(((0.92, 0.95, 0.96), (0.96, 0.97, 0.97), (0.6, 0.85, 0.94))):
            dataset.test_accuracy[rule, :, i] = accuracies[i]
    for values in dataset.data_vars.values():
        values += 0.01 * rng.standard_normal(values.shape)
    return dataset


def put(variable: str, value: float, **where: int | slice) -> Callable[[xr.Dataset], None]:
    """Put a value there."""

    def change(dataset: xr.Dataset) -> None:
        dataset[variable][where] = value

    return change


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (put("gradient_alignment", 0.7, rule=0, init_scale=1), {SMALL}),  # the width does not matter
    (put("gradient_alignment", 0.6, rule=0, init_scale=1, width=2), {SMALL}),
    (put("gradient_alignment", 0.7, rule=0, init_scale=0), {LARGE}),
    (put("gradient_alignment", 0.8, rule=0, init_scale=0, width=2), {LARGE}),
    (put("overlap", 0.5, rule=0, init_scale=0), {ALIKE}),
    (put("test_accuracy", 0.6, rule=2, init_scale=0), {GAIN}),  # the readout alone does not learn more
    (put("gradient_alignment", np.nan, rule=0, init_scale=0, width=1, draw=2, network=0), {LARGE}),
    (put("overlap", np.nan, rule=0, init_scale=0, width=0, draw=0), {ALIKE}),
    (put("test_accuracy", np.nan, rule=2, init_scale=0, width=0, draw=0, network=1), {GAIN}),
]
