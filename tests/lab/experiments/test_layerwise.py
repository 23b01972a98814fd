"""What is special to the experiment layerwise, and that each part of its check can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from feedalign.alignment import onset
from feedalign.cli import main
from feedalign.lab.data import ImageData
from feedalign.lab.experiments import layerwise


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("layerwise")


def test_the_result_has_named_dimensions_and_units(tiny: xr.Dataset) -> None:
    expected = {"rule": 3, "draw": 2, "network": 3, "pair": 3, "layer": 2, "weight_layer": 2}
    assert {dim: n for dim, n in tiny.sizes.items() if dim != "epoch"} == expected
    assert tiny.epoch.attrs["units"] == "epochs"
    assert tiny.epoch[0] == 0
    assert tiny.epoch[-1] == 2
    assert tiny.layer.values.tolist() == [1, 2]
    assert tiny.weight_layer.values.tolist() == [2, 3]
    assert set(tiny.rule.values) == {"dfa", "backprop", "readout-only"}


def test_every_draw_is_measured_under_every_rule(tiny: xr.Dataset) -> None:
    for values in tiny.data_vars.values():
        assert values.notnull().all()


def test_at_epoch_0_the_rules_agree_on_all_but_the_error(tiny: xr.Dataset) -> None:
    """The same initial weights, the same feedback, nothing trained yet."""
    start = tiny.isel(epoch=0, draw=0)
    for name in ("gradient_alignment", "weight_alignment", "overlap", "train_accuracy", "test_accuracy"):
        for rule in ("backprop", "readout-only"):
            np.testing.assert_array_equal(start[name].sel(rule=rule), start[name].sel(rule="dfa"))


def test_the_readout_alone_leaves_the_hidden_weights_alone(tiny: xr.Dataset) -> None:
    hidden = tiny.weight_alignment.sel(rule="readout-only", draw=0, weight_layer=2)
    np.testing.assert_allclose(hidden, hidden.isel(epoch=0).broadcast_like(hidden), rtol=0, atol=1e-7)
    readout = tiny.weight_alignment.sel(rule="readout-only", draw=0, weight_layer=3)
    assert float(abs(readout.isel(epoch=-1) - readout.isel(epoch=0)).min()) > 1e-4


# What the check is to see, made by hand: under DFA layer l aligns around epoch 0.1, 0.3, 0.9; runs differ by 10 %.
EPOCHS = np.concatenate([[0.0], np.geomspace(0.01, 60, 40)])
CENTRES = (0.1, 0.3, 0.9)
DRAWS, NETWORKS, PAIRS = 4, 5, 10
FIRST, SECOND, ONSET, DFA_OVERLAP, BEYOND, ACCURACY = range(6)
RULES = ("dfa", "backprop", "readout-only")


def ideal(centres: tuple[float, ...] = CENTRES) -> xr.Dataset:
    rng = np.random.default_rng(0)
    sizes = {"rule": 3, "draw": DRAWS, "epoch": len(EPOCHS)}
    own = {
        "gradient_alignment": {"layer": 3, "network": NETWORKS},
        "overlap": {"pair": PAIRS},
        "test_accuracy": {"network": NETWORKS},
    }
    dataset = xr.Dataset(
        {name: ((*sizes, *dims), np.zeros((*sizes.values(), *dims.values()))) for name, dims in own.items()},
        coords={"rule": list(RULES), "epoch": EPOCHS, "layer": [1, 2, 3]},
    )
    for draw in range(DRAWS):
        for layer, centre in enumerate(centres):
            for network in range(NETWORKS):
                with np.errstate(divide="ignore"):
                    curve = 0.8 / (1 + (centre * np.exp(0.1 * rng.standard_normal()) / EPOCHS) ** 3)
                dataset.gradient_alignment[0, draw, :, layer, network] = curve
    for i, (overlap, accuracy) in enumerate([(0.45, 0.8), (0.0, 0.9), (0.9, 0.5)]):
        dataset.overlap[i] = overlap + 0.01 * rng.standard_normal(dataset.overlap[i].shape)
        dataset.test_accuracy[i] = accuracy + 0.01 * rng.standard_normal(dataset.test_accuracy[i].shape)
    return dataset


def in_order(*centres: float) -> Callable[[xr.Dataset], None]:
    """Let the layers align around these epochs."""

    def change(dataset: xr.Dataset) -> None:
        dataset.gradient_alignment[:] = ideal(centres).gradient_alignment

    return change


def put(variable: str, value: float, **where: int | slice) -> Callable[[xr.Dataset], None]:
    """Put a value there."""

    def change(dataset: xr.Dataset) -> None:
        dataset[variable][where] = value

    return change


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (in_order(0.3, 0.1, 0.9), {FIRST, ONSET}),
    (in_order(0.1, 0.9, 0.3), {SECOND}),
    (in_order(0.9, 0.3, 0.1), {FIRST, SECOND, ONSET}),
    (in_order(0.3, 0.3, 0.9), {FIRST, ONSET}),
    (in_order(0.3, 0.3, 0.3), {FIRST, SECOND, ONSET}),
    (put("gradient_alignment", 0.0, rule=0), {FIRST, SECOND, ONSET}),  # no layer ever aligns
    (put("gradient_alignment", -0.3, rule=0, layer=2), {SECOND, ONSET}),  # the top layer turns away
    (put("gradient_alignment", np.nan, rule=0, layer=1, draw=2, network=3), {FIRST, SECOND, ONSET}),
    (put("overlap", 0.1, rule=0), {DFA_OVERLAP, BEYOND}),
    (put("overlap", np.nan, rule=0, draw=1, pair=0, epoch=-1), {DFA_OVERLAP, BEYOND}),
    (put("overlap", 0.4, rule=1), {BEYOND}),  # backprop finds one solution too
    (put("test_accuracy", 0.55, rule=0), {ACCURACY}),  # hardly better than the readout alone
    (put("test_accuracy", 0.95, rule=2), {ACCURACY}),  # backprop gains nothing
    (put("test_accuracy", np.nan, rule=1, draw=0, network=1), {ACCURACY}),
]


def test_a_delay_ignores_scale_and_follows_the_unit_of_time() -> None:
    dataset = ideal()
    first = layerwise.delays(dataset)
    np.testing.assert_allclose(first.mean(("draw", "network")), np.log(CENTRES), atol=0.2)
    np.testing.assert_allclose(
        layerwise.delays(dataset.assign(gradient_alignment=dataset.gradient_alignment / 3)), first
    )
    later = dataset.assign_coords(epoch=7 * dataset.epoch)
    np.testing.assert_allclose(layerwise.delays(later), first + np.log(7))


EARLY = np.array([0.0, 0.1, 1.0, 10.0])


def test_an_onset_is_where_the_threshold_is_passed_in_log_time() -> None:
    low, high = layerwise.ONSET / 2, 3 * layerwise.ONSET / 2
    assert onset(EARLY, np.array([0.0, low, high, 1.0]), layerwise.ONSET) == pytest.approx(np.sqrt(0.1))
    assert onset(EARLY, np.array([-0.1, 0.0, layerwise.ONSET, 1.0]), layerwise.ONSET) == pytest.approx(1.0)
    # What comes before and after the first passage changes nothing.
    assert onset(EARLY, np.array([-0.5, low, high, 0.0]), layerwise.ONSET) == pytest.approx(np.sqrt(0.1))
    # The unit of time goes through.
    assert onset(7 * EARLY, np.array([0.0, low, high, 1.0]), layerwise.ONSET) == pytest.approx(7 * np.sqrt(0.1))


@pytest.mark.parametrize(
    "curve",
    [[0.0, 0.0, 0.0, 0.0], [0.0, -0.5, -0.9, -1.0], [0.9, 0.0, 0.1, 0.9], [0.0, 0.9, 0.9, 0.9], [np.nan] * 4],
    ids=["flat", "turns away", "begins above", "before the first time after 0", "no number"],
)
def test_without_a_passage_there_is_no_onset(curve: list[float]) -> None:
    assert np.isnan(onset(EARLY, np.array(curve), layerwise.ONSET))


@pytest.mark.claims
@pytest.mark.network
def test_the_claim_is_supported_on_mnist(mnist: ImageData, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    command = ["reproduce", "layerwise", "--dataset", "mnist", "--runs", str(tmp_path), "--report", str(report)]
    assert main(command) == 0
    assert "reproduce layerwise --preset quick --dataset mnist" in report.read_text(encoding="utf-8")
