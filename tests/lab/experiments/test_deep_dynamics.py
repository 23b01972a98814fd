"""Align, then memorise in deep networks: what the result holds, and what the check makes of made-up results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from feedalign.lab.experiments import deep_dynamics, get
from feedalign.lab.experiments.common.curves import at_maximum, log_half_time, log_onset, sinks
from feedalign.lab.experiments.common.ensemble_training import EnsembleTraining


@pytest.fixture
def tiny(tiny_result: Callable[[str], xr.Dataset]) -> xr.Dataset:
    return tiny_result("deep-dynamics")


def test_the_result_has_named_dimensions_and_units(tiny: xr.Dataset) -> None:
    expected = {
        "activation": 2, "rule": 2, "noise": 2, "draw": 2, "network": 2, "pair": 1, "layer": 2, "weight_layer": 2,
    }  # fmt: skip
    assert {dim: n for dim, n in tiny.sizes.items() if dim != "epoch"} == expected
    assert tiny.epoch.attrs["units"] == "epochs"
    assert tiny.activation.values.tolist() == ["tanh", "relu"]
    assert tiny.noise.values.tolist() == [0.0, 0.5]


def test_every_condition_is_measured(tiny: xr.Dataset) -> None:
    for name, values in tiny.data_vars.items():
        noisy = values.isel(noise=slice(1, None)) if name == "corrupted_accuracy" else values
        assert noisy.notnull().all(), name


def test_the_paper_s_setting_is_the_paper_s() -> None:
    config = get("deep-dynamics").CONFIGS["paper"]
    assert (config.image_size, config.hidden, config.batch_size, config.optimizer) == (14, (64, 64), 32, "sgd")
    assert (config.feedback, config.feedback_scale, config.networks, config.epochs) == ("uniform", 1.0, 10, 1000)
    assert config.activations == (("tanh", 1e-3), ("relu", 1e-3))
    assert config.label_noises == (0.0, 0.1, 0.2, 0.5, 0.9)
    assert deep_dynamics.ON_DATASET["cifar10"]["paper"].dataset == "cifar10"


def test_jobs_are_shared_with_other_experiments_of_the_same_setting(tiny_config: Callable[[str], object]) -> None:
    assert {type(job) for job in deep_dynamics.jobs(tiny_config("deep-dynamics"))} == {EnsembleTraining}  # type: ignore[arg-type]


# What the check is to see, made by hand. More noise aligns later and lower; at noise 0.5 tanh networks lose 0.1.
EPOCHS = np.concatenate([[0.0], np.geomspace(0.1, 200, 34)])
NOISES, DRAWS, NETWORKS = (0.0, 0.2, 0.5), 5, 2
FIRST, CLEAN, SINK, FITTED, LATER, LOWER, OVERLAP = range(7)


def rising(centre: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 1 / (1 + (centre / EPOCHS) ** 2)


def ideal() -> xr.Dataset:
    rng = np.random.default_rng(0)
    sizes = {"activation": 2, "rule": 2, "noise": len(NOISES), "draw": DRAWS}
    own = {
        "gradient_alignment": {"layer": 2, "network": NETWORKS},
        "weight_alignment": {"weight_layer": 2, "network": NETWORKS},
        "overlap": {"pair": 1},
        "clean_accuracy": {"network": NETWORKS},
        "corrupted_accuracy": {"network": NETWORKS},
    }
    dataset = xr.Dataset(
        {
            name: ((*sizes, *dims, "epoch"), np.zeros((*sizes.values(), *dims.values(), len(EPOCHS))))
            for name, dims in own.items()
        },
        coords={
            "activation": ["tanh", "relu"], "rule": ["dfa", "backprop"], "noise": list(NOISES), "epoch": EPOCHS,
            "weight_layer": [2, 3],
        },
    )  # fmt: skip
    for noise in range(len(NOISES)):
        aligned = rising(1 + noise)
        for rule in range(2):
            dataset.clean_accuracy[:, rule, noise] = 0.1 + 0.9 * aligned
            dataset.corrupted_accuracy[:, rule, noise] = 0.1 + 0.9 * rising(60.0)
        dataset.gradient_alignment[:, 0, noise] = 0.8 * aligned
        dataset.weight_alignment[:, 0, noise] = (0.7 - 0.1 * noise) * aligned
        dataset.overlap[:, 0, noise] = 0.6 * aligned
    dataset.weight_alignment[0, 0, 2] -= 0.1 * rising(60.0)
    dataset.corrupted_accuracy[:, :, 0] = np.nan
    for values in dataset.data_vars.values():
        # Draws differ; within a draw the measurements do not jump.
        values += 0.003 * rng.standard_normal((*values.shape[:-1], 1))
    return dataset


def put(variable: str, value: float, **where: int | slice) -> Callable[[xr.Dataset], None]:
    """Put a value there."""

    def change(dataset: xr.Dataset) -> None:
        dataset[variable][where] = value

    return change


def curve(variable: str, values: np.ndarray, **where: int | slice) -> Callable[[xr.Dataset], None]:
    """Put a curve over epochs there."""

    def change(dataset: xr.Dataset) -> None:
        dataset[variable][where] = values

    return change


def no_sink(dataset: xr.Dataset) -> None:
    dataset.weight_alignment[0, 0, 2] = 0.4 * rising(3.0)


def align_hardly_at_all(dataset: xr.Dataset) -> None:
    """The curves of gradient alignment have the same shape, and a tenth of the height."""
    dataset.gradient_alignment[:, 0] *= 0.1


def sinks_without_noise_too(dataset: xr.Dataset) -> None:
    dataset.weight_alignment[0, 0, 0] -= 0.1 * rising(60.0)


def sinks_under_backprop_too(dataset: xr.Dataset) -> None:
    dataset.weight_alignment[0, 1, 2] = 0.3 * rising(3.0) - 0.15 * rising(60.0)


TANH, RELU, DFA, BACKPROP = ({"activation": 0}, {"activation": 1}, {"rule": 0}, {"rule": 1})
# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (curve("gradient_alignment", 0.8 * rising(50.0), activation=1, rule=0, noise=1), {FIRST}),
    (align_hardly_at_all, {FIRST}),
    (curve("corrupted_accuracy", 0.1 + 0.9 * rising(2.0), activation=1, rule=0), {FIRST}),
    (put("corrupted_accuracy", 0.1, activation=1, rule=0), {FIRST}),  # never memorises, so nothing is shown
    (curve("corrupted_accuracy", 0.1 + 0.9 * rising(2.0), activation=0, rule=0), {FIRST, CLEAN, FITTED}),
    (put("corrupted_accuracy", 0.2, activation=0, rule=0), {FIRST, FITTED}),
    (put("clean_accuracy", 0.4, activation=0, rule=0), {CLEAN}),
    (no_sink, {SINK, FITTED, CLEAN}),  # the maximum is then the end, when everything is fitted
    (sinks_without_noise_too, {SINK}),
    (sinks_under_backprop_too, {SINK}),
    (curve("weight_alignment", 0.6 * rising(1.0), activation=1, rule=0, noise=1), {LATER}),
    (curve("weight_alignment", 0.7 * rising(2.0), activation=0, rule=0, noise=1), {LOWER}),
    (put("overlap", 0.1, activation=1, rule=0, noise=2), {OVERLAP}),
    (put("overlap", 0.5, activation=0, rule=1, noise=0), {OVERLAP}),
    (put("overlap", np.nan, activation=0, rule=0, noise=0, draw=1, epoch=-1), {OVERLAP}),
    (put("gradient_alignment", np.nan, activation=1, rule=0, noise=2, draw=0, network=1, epoch=-1), {FIRST}),
    (put("weight_alignment", np.nan, activation=0, rule=0, noise=2, draw=0, network=1, epoch=slice(20, None)),
     {SINK, LATER, LOWER}),  # one network has diverged
]  # fmt: skip


def test_a_curve_has_its_half_time_its_maximum_and_what_it_loses() -> None:
    epochs = np.array([0.0, 1.0, 10.0, 100.0, 1000.0])
    curves = xr.DataArray([[0.0, 0.1, 0.5, 1.0, 0.8], [0.0, 0.0, 0.3, 0.9, np.nan]], dims=("run", "epoch"),
                          coords={"epoch": epochs})  # fmt: skip
    np.testing.assert_allclose(log_half_time(curves), [np.log(10.0), np.nan])
    np.testing.assert_allclose(log_onset(curves, 0.3), [np.log(10) / 2, np.log(10)])
    assert log_onset(curves, 2.0).isnull().all()
    np.testing.assert_allclose(sinks(curves), [0.2, np.nan])
    np.testing.assert_array_equal(at_maximum(curves.epoch.broadcast_like(curves), curves), [100.0, 100.0])


def test_later_is_in_log_time_so_the_unit_does_not_matter() -> None:
    dataset = ideal()
    slower = dataset.assign_coords(epoch=7 * dataset.epoch)
    for one, other in zip(deep_dynamics.check(dataset), deep_dynamics.check(slower), strict=True):
        assert other.effect == pytest.approx(one.effect)
