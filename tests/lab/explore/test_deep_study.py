"""The networks that learn on the page learn as every other network does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from feedalign.alignment import gradient_alignment, weight_alignment
from feedalign.errors import ArgumentError, OutputError
from feedalign.feedback import Uniform
from feedalign.lab.explore.deep_study import BATCH_SIZE, COMPARED, PROBE, DeepSetting, DeepTraining, images
from feedalign.lab.training import one_thread, train
from feedalign.networks import MLP
from feedalign.rules import RULES
from feedalign.streams import torch_generator

SETTING = DeepSetting(layers=2, width=16, lr=0.1, epochs=2, seed=3)


def finished(setting: DeepSetting) -> DeepTraining:
    training = DeepTraining(setting)
    while not training.done:
        training.advance()
    return training


@pytest.fixture(scope="module")
def training() -> DeepTraining:
    return finished(SETTING)


def test_epoch_by_epoch_is_the_same_as_a_whole_training(training: DeepTraining) -> None:
    data = images()
    for rule in COMPARED:
        network = MLP([64, 16, 16, 10], "tanh", seed=3)
        net = RULES[rule](network, feedback=Uniform(), seed=3)
        with one_thread():
            train(
                net, data.train_images, data.train_labels, loss_fn=cross_entropy, epochs=2, batch_size=BATCH_SIZE,
                optimizer=torch.optim.SGD(net.parameters(), lr=0.1), order=torch_generator(3, "order"),
            )  # fmt: skip
            expected = gradient_alignment(net, cross_entropy, data.train_images[:PROBE], data.train_labels[:PROBE])  # type: ignore[arg-type]
        last = training.moments[rule][-1]
        assert last.epoch == 2
        assert last.gradient == tuple(expected.layers.values())
        assert last.weight == tuple(weight_alignment(net).layers.values())
        with torch.no_grad():
            assert last.accuracy == (net(data.test_images).argmax(1) == data.test_labels).double().mean().item()


def test_the_networks_have_the_same_start_and_then_part(training: DeepTraining) -> None:
    dfa, backprop = (training.moments[rule] for rule in COMPARED)
    assert dfa[0] == backprop[0]
    assert dfa[0].epoch == 0
    assert dfa[-1] != backprop[-1]


def test_moments_come_in_order_and_close_every_epoch(training: DeepTraining) -> None:
    for moments in training.moments.values():
        epochs = [moment.epoch for moment in moments]
        assert epochs == sorted(set(epochs))
        assert {0, 1, 2} <= set(epochs)
        assert sum(epoch < 1 for epoch in epochs) > 10  # the first steps are looked at more closely
        assert all(len(moment.gradient) == len(moment.weight) == SETTING.layers for moment in moments)


def test_dfa_learns_and_aligns(training: DeepTraining) -> None:
    first, last = training.moments["dfa"][0], training.moments["dfa"][-1]
    assert first.accuracy < 0.3
    assert last.accuracy > 0.5
    assert np.mean(last.gradient) > np.mean(first.gradient) + 0.1


def test_the_same_seed_gives_the_same_moments(training: DeepTraining) -> None:
    assert finished(SETTING).moments == training.moments


def test_a_finished_training_stays_as_it_is(training: DeepTraining) -> None:
    before = {rule: list(moments) for rule, moments in training.moments.items()}
    training.advance()
    assert training.moments == before
    assert training.epoch == 2


def test_threads_that_ask_at_once_take_turns(training: DeepTraining) -> None:
    """A page that lost its connection asks for the next epoch while the last is still under way."""
    together = DeepTraining(training.setting)
    with ThreadPoolExecutor(training.setting.epochs) as pool:
        for done in [pool.submit(together.advance) for _ in range(training.setting.epochs)]:
            done.result()
    assert together.moments == training.moments


def test_a_network_that_diverges_says_so() -> None:
    training = DeepTraining(DeepSetting(layers=2, width=16, activation="relu", lr=1e20, epochs=2))
    with pytest.raises(OutputError, match="the network has diverged"):
        training.advance()


def test_a_value_out_of_range_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="activation"):
        DeepTraining(DeepSetting(activation="step"))
