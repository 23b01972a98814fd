"""The general training of an ensemble: interruptions, networks that diverge, labels told apart, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from feedalign.errors import ArgumentError
from feedalign.lab.experiments.common.ensemble_training import EnsembleTraining, FiniteLosses
from feedalign.lab.experiments.common.ensembles import cross_entropies, diverged, measured_ensemble
from feedalign.lab.experiments.common.gradient_noise import GradientNoise
from feedalign.lab.experiments.common.sampling import image_sample
from feedalign.lab.runs import Checkpoints, Desk, compute_job
from feedalign.lab.training import one_thread, train
from feedalign.networks import EnsembleMLP
from feedalign.rules import DFA, Backprop, DirectRule, Frozen

TINY = EnsembleTraining(
    dataset="digits", train_images=160, hidden=(9, 7), activation="tanh", rule="dfa", draw=0, epochs=50, networks=3,
    measurements=6, probe=30, lr=3e-3, label_noise=0.5,
)  # fmt: skip  # 250 steps


NO_NOISE = GradientNoise("none", 0.0, 0, 0)


class StoppedError(Exception):
    """Raised in place of a kill."""


@pytest.mark.parametrize(
    "changed",
    [
        {"noise_kind": "random", "noise_norm": 1.0},
        {"optimizer": "adam", "rule": "backprop"},
        {"momentum": 0.9, "weight_decay": 1e-3, "rule": "readout-only"},
    ],
    ids=["SGD with noise", "Adam", "momentum and weight decay"],
)
def test_killed_again_and_again_it_ends_at_the_same_bits(changed: dict[str, Any], tmp_path: Path) -> None:
    job = replace(TINY, **changed)
    begun: list[int] = []

    def stopped_at(last: int) -> xr.Dataset:
        def progress(done: int, _total: int) -> None:
            begun.append(done)
            if done == last:
                raise StoppedError(f"stopped at step {done}")

        return job.compute(Desk(progress, Checkpoints(tmp_path, every=0.0)))

    for last in (100, 200, 250):
        with pytest.raises(StoppedError, match=f"stopped at step {last}$"):
            stopped_at(last)
    xr.testing.assert_identical(stopped_at(-1), compute_job(job))
    assert begun.count(0) == 1, "only the first attempt began at the beginning"


def test_the_rules_of_a_draw_begin_as_the_same_networks_with_the_same_feedback() -> None:
    start, *others = (compute_job(replace(TINY, rule=rule, epochs=1)).isel(epoch=0) for rule in ("dfa", "backprop"))
    for other in others:
        alike = [name for name in start if name not in ("finite_steps", "update_alignment")]
        xr.testing.assert_identical(start[alike], other[alike])
    assert not compute_job(replace(TINY, draw=1, epochs=1)).isel(epoch=0).equals(start)


def test_accuracy_is_told_apart_by_whether_the_label_is_the_true_one() -> None:
    found = compute_job(replace(TINY, hidden=(40, 40), lr=0.02, epochs=100, rule="backprop"))
    noise = float(image_sample("digits", 0, (), 160, 0.5, 0, 0).corrupted.double().mean())
    whole = (1 - noise) * found.clean_accuracy + noise * found.corrupted_accuracy
    np.testing.assert_allclose(found.train_accuracy, whole, atol=1e-12)
    end = found.isel(epoch=-1)
    assert float(end.corrupted_accuracy.min()) > 0.9, "so few images are memorised, noise included"
    middle = found.isel(epoch=-2)
    assert (middle.clean_accuracy > middle.corrupted_accuracy).all(), "what can be understood is learned first"
    assert compute_job(replace(TINY, label_noise=0.0, epochs=1)).corrupted_accuracy.isnull().all()


def test_measured_steps_are_evenly_spaced_in_log_time() -> None:
    job = replace(TINY, epochs=2000, measurements=5, first_measured=1e-4)
    assert job.measured_steps(160) == [0, 1, 10, 100, 1000, 10_000]
    assert replace(job, epochs=1).measured_steps(160) == [0, 1, 2, 3, 5], "each step once at most"


# --- networks that diverge


def ensemble(seeds: tuple[int, ...], too_large: int | None = None) -> EnsembleMLP:
    """Networks of which one begins with weights that overflow."""
    networks = EnsembleMLP(len(seeds), [6, 8, 7, 3], "relu", bias=False, seeds=seeds)
    with torch.no_grad():
        for weight in networks.parameters():
            for i, seed in enumerate(seeds):
                weight[i] *= 1e20 if seed == too_large else 1.0
    return networks


@one_thread()
def trained(networks: EnsembleMLP, seeds: tuple[int, ...], rule: type[DirectRule], momentum: float) -> FiniteLosses:
    data = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 6, generator=data), torch.randint(3, (40,), generator=data)
    counted = FiniteLosses(rule(networks, seed=1), len(seeds))
    train(
        counted, x, y, loss_fn=counted.loss, optimizer=torch.optim.SGD(counted.parameters(), 0.01, momentum), epochs=4,
        batch_size=8, order=[torch.Generator().manual_seed(seed) for seed in seeds],
    )  # fmt: skip
    return counted


@pytest.mark.parametrize("rule", [DFA, Backprop])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_network_that_diverges_changes_no_bit_of_the_others(rule: type[DirectRule], momentum: float) -> None:
    seeds, others = (3, 5, 8, 9), (3, 8, 9)
    with_it, without = ensemble(seeds, too_large=5), ensemble(others)
    counted = trained(with_it, seeds, rule, momentum)
    trained(without, others, rule, momentum)
    assert counted.finite_steps.tolist() == [20, 0, 20, 20]
    states = with_it.state_dicts()
    assert not any(bool(weight.isfinite().all()) for weight in states.pop(1).values())
    for state, alone in zip(states, without.state_dicts(), strict=True):
        assert all(torch.equal(state[name], weight) for name, weight in alone.items())


def test_the_step_at_which_the_loss_was_no_number_is_counted() -> None:
    counted = FiniteLosses(torch.nn.Identity(), 2)
    labels = torch.zeros(2, 4, dtype=torch.int64)
    outputs = torch.zeros(2, 4, 3)
    for value in (1.0, 2.0, float("inf"), float("nan"), float("nan")):
        outputs[1, 2, 0] = value
        torch.testing.assert_close(
            counted.loss(counted(outputs), labels), cross_entropies(outputs, labels).sum(), equal_nan=True
        )
    assert counted.finite_steps.tolist() == [5, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_what_is_measured_of_a_diverged_network_is_nan_and_of_the_others_as_ever(value: float) -> None:
    sample = image_sample("digits", 0, (), 60, 0.5, 0, 0)
    networks = EnsembleMLP(3, [64, 8, 7, 10], "relu", bias=False)
    net = DFA(networks, seed=1)
    before = measured_ensemble(net, networks, sample, 20, 8, NO_NOISE)
    with torch.no_grad():
        list(networks.parameters())[1][1, 2, 3] = value
    weights = [weight.detach().clone() for weight in networks.parameters()]
    assert diverged(networks, sample.train_x[:20]).tolist() == [False, True, False]
    found = measured_ensemble(net, networks, sample, 20, 8, NO_NOISE)
    xr.testing.assert_identical(found.isel(network=[0, 2], pair=[1]), before.isel(network=[0, 2], pair=[1]))
    assert found.isel(network=1, pair=[0, 2]).to_array().isnull().all()
    for weight, kept in zip(networks.parameters(), weights, strict=True):
        assert torch.equal(weight.nan_to_num(), kept.nan_to_num()), "the weights are put back"


def test_a_training_in_which_all_diverge_has_a_result() -> None:
    found = compute_job(replace(TINY, lr=1e30, activation="relu", epochs=1))
    assert (found.finite_steps == 1).all()
    assert found.isel(epoch=-1)[["overlap", "train_accuracy", "gradient_alignment"]].to_array().isnull().all()


# --- what is refused, and devices


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rule": "fa"}, "rule='fa'"),
        ({"feedback": "channelwise"}, "feedback='channelwise'"),
        ({"noise_kind": "pink"}, "noise_kind='pink'"),
        ({"noise_kind": "fixed", "noise_norm": -1.0}, "noise_norm must be a finite number of at least 0"),
        ({"optimizer": "lion"}, "optimizer='lion'"),
        ({"optimizer": "adam", "momentum": 0.5}, "momentum=0.5 is SGD's"),
    ],
)
def test_what_cannot_be_trained_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        compute_job(replace(TINY, **changed))


@pytest.mark.parametrize("feedback", ["gaussian", "orthogonal", "rademacher", "uniform"])
def test_every_recipe_takes_a_scale(feedback: str) -> None:
    small, large = (compute_job(replace(TINY, feedback=feedback, feedback_scale=scale)) for scale in (0.0, 1.0))
    assert small.weight_alignment.isnull().all(), "feedback of zero has no direction"
    assert large.weight_alignment.notnull().all()


def test_the_frozen_control_leaves_its_block_alone() -> None:
    found = compute_job(replace(TINY, rule="frozen"))
    assert issubclass(Frozen, Backprop)
    np.testing.assert_array_equal(found.weight_alignment.sel(weight_layer=2).diff("epoch"), 0.0)
    assert (abs(found.weight_alignment.sel(weight_layer=3).diff("epoch")) > 0).any()


def test_only_a_job_for_a_gpu_asks_for_a_part_of_one() -> None:
    assert TINY.gpus == 0
    assert 0 < replace(TINY, device="cuda").gpus <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_networks_train_as_on_the_cpu() -> None:
    on_cpu, on_gpu = (compute_job(replace(TINY, epochs=2, device=device)) for device in ("cpu", "cuda"))
    for name in ("gradient_alignment", "weight_alignment", "overlap"):
        np.testing.assert_allclose(on_gpu[name], on_cpu[name], atol=1e-3)


def test_data_are_gathered_where_they_are() -> None:
    """On a device without numbers, an index from another device would be refused."""
    seen: list[Tensor] = []

    class Witness(torch.nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            seen.append(input)
            return super().forward(input)

    net = Witness(6, 3, device="meta")
    train(
        net, torch.empty(40, 6, device="meta"), torch.empty(40, dtype=torch.int64, device="meta"),
        loss_fn=torch.nn.functional.cross_entropy, optimizer=torch.optim.SGD(net.parameters(), 0.1), epochs=1,
        batch_size=16, order=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert [(x.device.type, len(x)) for x in seen] == [("meta", 16), ("meta", 16), ("meta", 8)]
