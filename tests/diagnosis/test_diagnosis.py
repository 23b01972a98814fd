"""`fa.diagnose`: what is measured is what it says it is; the user's net, data and random state stay as they are."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from tests.cases.diagnosed import data, model, squared
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.theory import linear


def test_before_training_it_sees_the_second_moments_written_out() -> None:
    net = fa.DFA(model())
    found = fa.diagnose(net, squared, data(), steps=1)
    whole = data()[:-1]  # the last batch is shorter
    x, y = (np.concatenate([batch[i].numpy() for batch in whole]).astype(float) for i in (0, 1))
    e = net(torch.from_numpy(x).float()).detach().double().numpy() - y
    np.testing.assert_allclose(found.errors.matrix, e.T @ e / len(e), atol=1e-5)
    values = np.linalg.svd(y.T @ x / len(x))[1] ** 2
    np.testing.assert_allclose(found.input_output.spectrum.values, values, rtol=1e-4)
    assert found.input_output.spectrum.condition_number == pytest.approx(values[0] / values[-1], rel=1e-4)
    assert not found.isotropic
    assert found.samples == len(x)
    F = [matrix.double().numpy() for matrix in net.feedback_matrices.values()]
    expected = linear.State(linear.first_steps(y.T @ x / len(x), F), F).cosines(e).mean(1)
    np.testing.assert_allclose(found.expected["plain"].gradient_alignment, expected, atol=1e-5)


def test_from_small_weights_a_deep_linear_net_has_what_was_expected() -> None:
    """The first steps are those of the theory, so cosines and conditioner agree; here to a few per cent."""
    net = model()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(1e-6)
    found = fa.diagnose(net, squared, data(100), compare=True, lr=1e-4, steps=40)
    for name, sent in {"dfa": "plain", "conditioned-dfa": "conditioned"}.items():
        measured = found.trained[name].gradient_alignment[-1]
        np.testing.assert_allclose(found.expected[sent].gradient_alignment, measured, atol=0.05)
        np.testing.assert_allclose(found.trained[name].residual, 0, atol=0.02)


def test_what_is_measured_is_what_a_loop_by_hand_measures() -> None:
    net = fa.DFA(model(), seed=3)
    found = fa.diagnose(net, squared, data(), steps=9, lr=0.003, probe=30)
    x_probe, y_probe = (torch.cat(side)[:30] for side in zip(*data(), strict=True))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.003)
    for x, y in [*data(), *data()][:9]:
        optimizer.zero_grad()
        squared(net(x), y).backward()
        optimizer.step()
    trained = found.trained["dfa"]
    by_hand = fa.gradient_alignment(net, squared, x_probe, y_probe)
    np.testing.assert_allclose(trained.gradient_alignment[-1], list(by_hand.layers.values()), rtol=1e-5)
    np.testing.assert_allclose(trained.weight_alignment[1:], list(fa.weight_alignment(net).layers.values()), rtol=1e-5)
    assert trained.losses[-1] == pytest.approx(float(squared(net(x_probe), y_probe).detach()), rel=1e-5)
    assert trained.steps == tuple(range(10))
    assert trained.loss_steps == tuple(range(10))


def of_numpy() -> str:
    return repr([np.asarray(each).tolist() for each in np.random.get_state(legacy=True)])  # noqa: NPY002


@pytest.mark.parametrize("wrapped", [False, True])
def test_net_and_random_state_stay_as_they_are(wrapped: bool) -> None:
    net: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    net = fa.DFA(net, points=["2"]) if wrapped else net
    net.eval()
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(4)
    states = torch.get_rng_state(), random.getstate(), of_numpy()
    fa.diagnose(net, squared, data(), steps=3, lr=0.01, points="auto" if wrapped else ["2"])
    assert not net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(weight.grad is None for weight in net.parameters())
    if not wrapped:  # no cut is left in the user's own model: the loss still reaches its first layer
        net(data()[0][0]).sum().backward()
        assert all(weight.grad is not None for weight in net.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert of_numpy() == states[2]


def test_both_rules_see_the_same_batches_and_a_diagnosis_repeats() -> None:
    """The data draw from three global generators, and the order of the batches is random."""

    def noisy() -> Any:
        for x, y in data():
            noise = torch.randn_like(x) + torch.from_numpy(np.random.randn(*x.shape)).float() + random.random()  # noqa: NPY002
            seen.append(float(noise.sum()))
            yield x + 0.1 * noise, y

    seen: list[float] = []
    first = fa.diagnose(model(), squared, noisy, compare=True, steps=10, lr=0.003)
    assert seen[-10:] == seen[-20:-10]
    assert len(set(seen[-10:])) == 10
    again = fa.diagnose(model(), squared, noisy, compare=True, steps=10, lr=0.003)
    assert again.table() == first.table()


def test_a_wrapped_model_is_taken_with_its_own_feedback() -> None:
    net = fa.ConditionedDFA(model(), feedback=fa.feedback.Orthogonal(), seed=5)
    found = fa.diagnose(net, squared, data(), steps=3, lr=1e-3)
    assert list(found.trained) == ["conditioned-dfa"]
    assert found.trained["conditioned-dfa"].conditioned
    bare = fa.diagnose(model(), squared, data(), steps=3, lr=1e-3, feedback=fa.feedback.Orthogonal(), seed=5)
    np.testing.assert_array_equal(found.expected["plain"].gradient_alignment, bare.expected["plain"].gradient_alignment)


@pytest.mark.parametrize("rule", [fa.DRTP, fa.DirectKolenPollack, fa.DFA])
def test_any_direct_rule_can_be_diagnosed(rule: Any) -> None:
    found = fa.diagnose(rule(model()), squared, data(), steps=3, lr=1e-3)
    assert np.isfinite(found.trained[next(iter(found.trained))].gradient_alignment).all()


@pytest.mark.parametrize(("lr", "finite"), [(1000.0, True), (1e30, False)])
def test_divergence_is_kept_and_told(lr: float, finite: bool) -> None:
    """Bounded activations keep the numbers finite at any learning rate; the net has diverged all the same."""
    net = fa.networks.MLP([6, 20, 20, 3], "tanh" if finite else "relu")
    batches = [(x, y.argmax(1)) for x, y in data()]
    found = fa.diagnose(net, functional.cross_entropy, batches, compare=True, lr=lr, steps=20)
    assert found.diverged
    assert all(net.diverged_at is not None and net.diverged_at < 10 for net in found.trained.values())
    assert all(np.isfinite(net.losses[-1]) == finite for net in found.trained.values())
    assert "dfa DIVERGED after" in found.table()
    assert "Lower the learning rate" in found.table()
    assert "No advice on ConditionedDFA: a network diverged" in found.advice
    assert np.isnan(found.speedup)
    found.figure()


def test_a_loss_that_refuses_what_a_diverged_net_gives_is_divergence_too() -> None:
    """Binary cross-entropy raises on NaN; the net has diverged, and the loss function is not at fault."""
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Sigmoid())
    targets = [(x, (y > 0).float()) for x, y in data()]
    assert fa.diagnose(net, functional.binary_cross_entropy, targets, lr=1e38, steps=20).diverged


def test_a_net_that_recovers_has_not_diverged() -> None:
    from feedalign.diagnosis.training import diverged_at

    assert diverged_at({0: 2.0, 1: 100.0, 2: 1.0}, None) is None
    assert diverged_at({0: 2.0, 1: 100.0, 2: 1.0, 3: 21.0, 4: float("nan")}, None) == 3
    assert diverged_at({0: 2.0, 1: 1.0}, 2) == 2
    assert diverged_at({0: -2.0, 1: -1.0}, None) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_models_precision_does_not_matter(dtype: torch.dtype) -> None:
    batches = [(x.to(dtype), y.to(dtype)) for x, y in data()]
    found = fa.diagnose(model().to(dtype), squared, batches, steps=3, lr=1e-3)
    reference = fa.diagnose(model(), squared, data(), steps=3, lr=1e-3)
    np.testing.assert_allclose(
        found.expected["plain"].by_output, reference.expected["plain"].by_output, rtol=1e-3, atol=1e-4
    )


def test_a_data_set_and_back_are_the_same_diagnosis() -> None:
    for lr in (1e-3, 1e30):
        found = fa.diagnose(fa.networks.MLP([6, 8, 8, 3], "relu"), squared, data(), compare=True, steps=12, lr=lr)
        dataset = found.to_dataset()
        back = fa.Diagnosis.from_dataset(dataset)
        assert back.table() == found.table()
        assert back.to_dataset().identical(dataset)
        assert dataset.gradient_alignment.dims == ("net", "step", "hidden")


def test_the_figure_shows_a_line_for_each_layer_of_each_net() -> None:
    found = fa.diagnose(model(), squared, data(), compare=True, steps=12, lr=1e-3)
    _, _, alignment = found.figure().axes
    labels = [line.get_label() for line in alignment.get_lines()]
    for layer in found.points:
        for rule in found.trained:
            drawn = alignment.get_lines()[labels.index(f"layer {layer}, {rule}")]
            np.testing.assert_array_equal(
                drawn.get_ydata(), found.trained[rule].gradient_alignment[:, found.points.index(layer)]
            )


def test_progress_is_told_for_all_nets_together() -> None:
    told: list[tuple[int, int]] = []
    fa.diagnose(model(), squared, data(), compare=True, steps=4, lr=1e-3, progress=lambda *done: told.append(done))
    assert told == [(done, 8) for done in range(1, 9)]
