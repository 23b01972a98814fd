"""What gradient alignment is worth: the result's shape, where DFA is placed, and made-up results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import gradient_perturbation as experiment


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("gradient-perturbation")


def test_the_result_has_named_dimensions(tiny: xr.Dataset) -> None:
    expected = {"rule": 3, "kind": 2, "norm": 2, "draw": 2, "network": 2, "pair": 1, "layer": 2}
    assert {dim: n for dim, n in tiny.sizes.items() if dim != "epoch"} == expected
    assert tiny.kind.values.tolist() == ["random", "fixed"]
    measured = tiny.drop_sel(rule="readout-only")
    assert all(values.notnull().all() for values in measured.data_vars.values())


def test_backprop_s_updates_are_the_true_ones(tiny: xr.Dataset) -> None:
    np.testing.assert_allclose(experiment.alignment(tiny.update_alignment.sel(rule="backprop")), 1.0, atol=1e-6)
    assert tiny.update_alignment.sel(rule="readout-only").isnull().all(), "hidden layers have no update"


def test_the_kinds_begin_as_the_same_networks(tiny: xr.Dataset) -> None:
    start = tiny.noisy_test_accuracy.isel(epoch=0)
    for kind in ("random", "fixed"):
        for norm in (2.0, 8.0):
            np.testing.assert_array_equal(
                start.sel(kind=kind, norm=norm), tiny.test_accuracy.isel(epoch=0).sel(rule="backprop")
            )


def test_longer_noise_leaves_less_alignment() -> None:
    norms = xr.DataArray([0.0, 1.0, np.sqrt(3)], dims="norm")
    np.testing.assert_allclose(experiment.alignment_under_noise(norms), [1.0, np.sqrt(0.5), 0.5])


# What the check is to see, made by hand. DFA's alignment lies between those of noise of lengths 0.5 and 2.
NORMS, DRAWS = (0.5, 2.0, 8.0), 5
RANDOM, FIXED, BEYOND_FIXED, LIKE_RANDOM, ALIKE = range(5)


def ideal() -> xr.Dataset:
    rng = np.random.default_rng(0)
    epochs = np.linspace(0, 10, 6)
    plain = {"rule": 3, "draw": DRAWS, "epoch": len(epochs)}
    noisy = {"kind": 2, "norm": len(NORMS), "draw": DRAWS, "epoch": len(epochs)}

    def zeros(**sizes: int) -> tuple[tuple[str, ...], np.ndarray]:
        return tuple(sizes), np.zeros(tuple(sizes.values()))

    dataset = xr.Dataset(
        {
            "update_alignment": zeros(**plain, layer=2, network=2),
            "test_accuracy": zeros(**plain, network=2),
            "noisy_test_accuracy": zeros(**noisy, network=2),
            "noisy_overlap": zeros(**noisy, pair=1),
        },
        coords={"rule": list(experiment.RULES), "kind": ["random", "fixed"], "norm": list(NORMS), "epoch": epochs},
    )
    dataset.update_alignment[0], dataset.update_alignment[1], dataset.update_alignment[2] = 0.7, 1.0, np.nan
    for rule, accuracy in enumerate((0.95, 0.96, 0.7)):
        dataset.test_accuracy[rule] = accuracy
    for norm, accuracy in enumerate((0.9, 0.4, 0.1)):
        dataset.noisy_test_accuracy[0, norm] = 0.95
        dataset.noisy_test_accuracy[1, norm] = accuracy
    dataset.noisy_overlap[1] = 0.95
    for values in dataset.data_vars.values():
        values += 0.005 * rng.standard_normal(values.shape)
    return dataset


def test_dfa_is_placed_between_the_noises_of_its_alignment() -> None:
    dataset = ideal()
    at = float(experiment.alignment_under_noise(dataset.norm)[1])
    for aligned, expected in (
        (at, (0.4 - 0.7) / 0.26),
        (1.0, 1.0),
        ((1 + 1 / np.sqrt(1.25)) / 2, (1 + 0.2 / 0.26) / 2),
    ):
        dataset.update_alignment[0] = aligned
        placed = experiment.at_alignment_of_dfa(dataset).sel(kind="fixed").mean("draw")
        assert float(placed) == pytest.approx(expected, abs=0.05)


def test_dfa_s_alignment_is_averaged_over_epochs_not_measurements() -> None:
    updates = xr.DataArray(
        np.array([0.0, 0.0, 1.0, 1.0])[:, None, None] * np.ones((4, 2, 3)),
        dims=("epoch", "layer", "network"), coords={"epoch": [0.0, 0.1, 0.1001, 10.0]},
    )  # fmt: skip
    assert float(experiment.alignment(updates)) == pytest.approx(0.99, abs=0.001)


def put(variable: str, value: float, **where: int | slice) -> Callable[[xr.Dataset], None]:
    """Put a value there."""

    def change(dataset: xr.Dataset) -> None:
        dataset[variable][where] = value

    return change


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (put("noisy_test_accuracy", 0.75, kind=0, norm=2), {RANDOM}),
    (put("noisy_test_accuracy", 0.95, kind=1), {FIXED, BEYOND_FIXED}),  # fixed noise costs nothing
    (put("noisy_test_accuracy", 0.9, kind=1, norm=1), {FIXED, BEYOND_FIXED}),
    (put("test_accuracy", 0.7, rule=0), {BEYOND_FIXED, LIKE_RANDOM}),  # DFA is no better than the readout alone
    (put("test_accuracy", 0.85, rule=0), {LIKE_RANDOM}),
    (put("update_alignment", 0.98, rule=0), {BEYOND_FIXED}),  # at such an alignment fixed noise costs little
    (put("test_accuracy", 0.6, rule=1), {RANDOM, FIXED, BEYOND_FIXED, LIKE_RANDOM}),  # backprop gains nothing
    (put("noisy_overlap", 0.2, kind=1), {ALIKE}),
    (put("noisy_overlap", 0.9, kind=0), {ALIKE}),
    (put("noisy_test_accuracy", np.nan, kind=1, norm=1, draw=0, network=0), {FIXED, BEYOND_FIXED}),
    (put("noisy_overlap", np.nan, kind=0, norm=1, draw=0, epoch=-1), {ALIKE}),
]
