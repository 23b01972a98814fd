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
from feedalign.lab.experiments import Experiment, layerwise

Refused = Callable[[Experiment, xr.Dataset], set[int]]


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


def test_every_draw_of_dfa_is_measured_and_one_of_the_controls(tiny: xr.Dataset) -> None:
    for values in tiny.data_vars.values():
        assert values.sel(rule="dfa").notnull().all()
        for rule in ("backprop", "readout-only"):
            assert values.sel(rule=rule, draw=0).notnull().all()
            assert values.sel(rule=rule, draw=1).isnull().all()


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
FIRST, SECOND, DFA_OVERLAP, BP_OVERLAP, ACCURACY = range(5)
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
    for values in dataset.data_vars.values():
        values[1:, 1:] = np.nan  # the controls run for the first draw only
    return dataset


def test_what_the_claim_describes_is_supported(refused: Refused) -> None:
    assert refused(layerwise, ideal()) == set()


@pytest.mark.parametrize(
    ("centres", "expected"),
    [
        ((0.3, 0.1, 0.9), {FIRST}),
        ((0.1, 0.9, 0.3), {SECOND}),
        ((0.9, 0.3, 0.1), {FIRST, SECOND}),
        ((0.3, 0.3, 0.9), {FIRST}),
        ((0.3, 0.3, 0.3), {FIRST, SECOND}),
    ],
)
def test_another_order_of_the_layers_is_not_supported(
    centres: tuple[float, ...], expected: set[int], refused: Refused
) -> None:
    assert refused(layerwise, ideal(centres)) == expected


def put(variable: str, value: float, **where: int | slice) -> Callable[[xr.Dataset], None]:
    """Put a value there; by default everywhere, at the end a NaN or another number in one run."""

    def change(dataset: xr.Dataset) -> None:
        dataset[variable][where] = value

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(put("gradient_alignment", 0.0, rule=0), {FIRST, SECOND}, id="no layer ever aligns"),
        pytest.param(put("gradient_alignment", -0.3, rule=0, layer=2), {SECOND}, id="the top layer turns away"),
        pytest.param(
            put("gradient_alignment", 0.0, rule=0, layer=0, draw=2, network=3), {FIRST}, id="one run never aligns"
        ),
        pytest.param(
            put("gradient_alignment", np.nan, rule=0, layer=1, draw=2, network=3),
            {FIRST, SECOND},
            id="one run has no numbers",
        ),
        pytest.param(put("overlap", 0.1, rule=0), {DFA_OVERLAP}, id="the overlap never rises"),
        pytest.param(put("overlap", 0.2, rule=0, draw=1), {DFA_OVERLAP}, id="in one draw the overlap stays low"),
        pytest.param(
            put("overlap", np.nan, rule=0, draw=1, pair=0, epoch=-1), {DFA_OVERLAP}, id="one overlap is no number"
        ),
        pytest.param(put("overlap", 0.5, rule=1, draw=0), {BP_OVERLAP}, id="backprop finds one solution too"),
        pytest.param(
            put("overlap", np.nan, rule=1, draw=0, pair=4), {BP_OVERLAP}, id="backprop's overlap is no number"
        ),
        pytest.param(put("test_accuracy", 0.55, rule=0), {ACCURACY}, id="hardly better than the readout alone"),
        pytest.param(put("test_accuracy", 0.95, rule=2), {ACCURACY}, id="backprop gains nothing"),
        pytest.param(
            put("test_accuracy", np.nan, rule=0, draw=1, network=1), {ACCURACY}, id="one accuracy is no number"
        ),
        pytest.param(put("test_accuracy", np.nan, rule=1, draw=0, network=1), {ACCURACY}, id="nor one of backprop"),
    ],
)
def test_a_spoilt_result_is_not_supported(
    change: Callable[[xr.Dataset], None], expected: set[int], refused: Refused
) -> None:
    dataset = ideal()
    change(dataset)
    assert refused(layerwise, dataset) == expected


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


@pytest.mark.slow
@pytest.mark.network
def test_the_claim_is_supported_on_mnist(mnist: ImageData, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    command = ["reproduce", "layerwise", "--dataset", "mnist", "--runs", str(tmp_path), "--report", str(report)]
    assert main(command) == 0
    assert "reproduce layerwise --preset quick --dataset mnist" in report.read_text(encoding="utf-8")
