"""DFA of an error conditioned by its own running average: the formula, its invariances, and what it is for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from tests.cases.small import batch, network
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign.alignment import descent
from feedalign.errors import ArgumentError, PointsError
from feedalign.theory import linear

Array = NDArray[np.float64]


def seeing(errors: Tensor, net: fa.ConditionedDFA) -> None:
    """Run one backward pass in which these errors arrive at the output."""
    net(torch.randn(*errors.shape[:-1], 5, dtype=errors.dtype)).backward(errors)


def normal(n: int, C: int = 3, seed: int = 0) -> Tensor:
    mixed = torch.randn(n, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mixed * torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64) + 0.2 * mixed.roll(1, -1)


def written_down(passes: list[Tensor], every: int, decay: float) -> Array:
    """P after these passes, from the docstring's formula."""
    seen: list[tuple[float, Any]] = []
    P = np.eye(passes[0].shape[1])
    for t, errors in enumerate(passes):
        e = errors.numpy()
        seen = [(decay * weight, moment) for weight, moment in seen]
        seen.append((len(e), e.T @ e / len(e) / np.mean(e**2)))
        if t % every == 0:
            N = sum(weight for weight, _ in seen)
            S: Array = np.sum([weight * moment for weight, moment in seen], axis=0) / N
            inverse = np.linalg.inv(S + len(S) / N * np.eye(len(S)))
            P = np.sqrt(np.trace(S) / np.trace(S @ inverse)) * np.real(sqrtm(inverse))
    return P


@pytest.mark.parametrize(("every", "decay"), [(1, 0.9), (3, 0.99), (2, 0.0)])
def test_the_conditioner_is_the_formula_at_every_pass(every: int, decay: float) -> None:
    net = fa.ConditionedDFA(network(5, 8, 6, 3), every=every, decay=decay)
    passes = [normal(n, seed=n) for n in (7, 9, 2, 40, 5, 11, 1)]
    for t, errors in enumerate(passes):
        seeing(errors, net)
        expected = written_down(passes[: t + 1], every, decay)
        np.testing.assert_allclose(net.conditioner.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_a_pass_sends_what_the_passes_before_it_made() -> None:
    x, y = batch()
    net, plain = fa.ConditionedDFA(network(5, 8, 6, 3), every=1), fa.DFA(network(5, 8, 6, 3))
    for _ in range(2):
        P = net.conditioner.clone()
        for F, base in zip(plain.feedback_matrices.values(), net.feedback_matrices.values(), strict=True):
            F.copy_(base @ P)
        found = []
        for each in (net, plain):
            each.zero_grad()
            functional.cross_entropy(each(x), y).backward()
            found.append([p.grad for p in each.parameters()])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
    assert not torch.allclose(P, torch.eye(3, dtype=torch.float64), atol=0.05)


def test_many_errors_are_sent_white_and_as_long_as_they_are() -> None:
    errors = normal(100_000)
    net = fa.ConditionedDFA(network(5, 8, 3))
    seeing(errors, net)
    message = net.message(errors)
    assert float(message.square().mean()) == pytest.approx(float(errors.square().mean()), rel=1e-10)
    assert np.linalg.cond(np.cov(errors.T.numpy())) > 20
    assert np.linalg.cond((message.T @ message).numpy()) == pytest.approx(1, abs=0.01)


def test_equal_and_uncorrelated_errors_give_plain_dfa() -> None:
    net = fa.ConditionedDFA(network(5, 8, 3))
    seeing(torch.eye(3, dtype=torch.float64).repeat(2, 1) * 1e-3, net)
    torch.testing.assert_close(net.conditioner, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_it_is_the_theorys_conditioner_up_to_its_length() -> None:
    """From zero weights, isotropic inputs, a linear teacher: the first errors are −W̃ x."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.standard_normal((50_000, 5)))[0] * np.sqrt(50_000)  # Σ_x = I on the sample itself
    teacher = rng.standard_normal((3, 5))
    net = fa.ConditionedDFA(fa.networks.MLP([5, 8, 6, 3], "linear", bias=False).double())
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    error = net(torch.from_numpy(x)) - torch.from_numpy(x @ teacher.T)
    (error.square().sum() / 2).backward()
    P, expected = net.conditioner.numpy(), linear.conditioner(teacher)
    # C white errors beside 50 000 are all that differs.
    np.testing.assert_allclose(P / np.linalg.norm(P), expected / np.linalg.norm(expected), atol=1e-3)


def test_directions_without_errors_are_not_blown_up() -> None:
    """The errors of a softmax sum to zero. What little does not is not made large."""
    errors = normal(3000)
    errors -= errors.mean(-1, keepdim=True)
    net = fa.ConditionedDFA(network(5, 8, 3))
    seeing(errors, net)
    stray = torch.full((1, 3), 1e-10, dtype=torch.float64)
    # At most c (C/N)^(-1/2), with c² = C/(C − 1) where the other directions have all the errors.
    assert float(net.message(stray).norm()) < 1.01 * np.sqrt(3000 / 3 * 3 / 2) * float(stray.norm())
    sent = net.message(errors)
    assert float(sent.norm()) == pytest.approx(float(errors.norm()), rel=1e-10)


def test_with_one_error_known_it_is_nearly_plain() -> None:
    """C white ones stand beside it."""
    net = fa.ConditionedDFA(network(5, 8, 3), every=1)
    seeing(normal(1), net)
    assert np.linalg.cond(net.conditioner.numpy()) <= np.sqrt(1 + 3 / 3) + 1e-12


@pytest.mark.parametrize("scale", [1e-12, 2.0**16])
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    x, y = batch()
    found = []
    for factor in (1.0, scale):
        net = fa.ConditionedDFA(network(5, 8, 6, 3), every=1)
        for _ in range(3):
            (factor * functional.cross_entropy(net(x), y)).backward()
        found.append((net.conditioner, [p.grad for p in net.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-11)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one is not None
        torch.testing.assert_close(other, scale * one, rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_a_pass_that_overflowed_or_has_no_error_is_left_out(value: float) -> None:
    net = fa.ConditionedDFA(network(5, 8, 3), every=1)
    seeing(normal(20), net)
    before = {name: buffer.clone() for name, buffer in net.gathered.named_buffers()}
    seeing(torch.full((4, 3), value, dtype=torch.float64), net)
    for name in ("moment", "conditioner"):
        torch.testing.assert_close(net.gathered.get_buffer(name), before[name], rtol=1e-12, atol=1e-14)


def test_measuring_is_no_backward_pass_of_its() -> None:
    x, y = batch()
    net = fa.ConditionedDFA(network(5, 8, 6, 3), every=1)
    functional.cross_entropy(net(x), y).backward()
    before = copy.deepcopy(net.state_dict())
    fa.gradient_alignment(net, functional.cross_entropy, x, y)
    fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters")
    fa.conditioning(net, functional.cross_entropy, x, y)
    descent(net, functional.cross_entropy, x, y, lr=0.1)
    fa.AlignmentMonitor(net, functional.cross_entropy, x, y).measure(0)
    fa.check_rule(net, functional.cross_entropy, x, y)
    with net.backprop():
        functional.cross_entropy(net(x), y).backward()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_measured_is_what_is_sent() -> None:
    """F_l P e beside the true derivative; and the slow reference finds the same gradients, in the midst of training."""
    x, y = batch()
    net = fa.ConditionedDFA(network(5, 8, 6, 3), every=1)
    functional.cross_entropy(net(x), y).backward()
    other = fa.DFA(network(5, 8, 6, 3))
    for F, base in zip(other.feedback_matrices.values(), net.feedback_matrices.values(), strict=True):
        F.copy_(base @ net.conditioner)
    found = fa.gradient_alignment(net, functional.cross_entropy, x, y).layers
    assert found == pytest.approx(fa.gradient_alignment(other, functional.cross_entropy, x, y).layers, abs=1e-12)
    assert fa.check_rule(net, functional.cross_entropy, x, y).worst < 1e-12


@pytest.mark.parametrize("late", [False, True])
def test_a_saved_state_goes_on_to_the_same_bits(late: bool, tmp_path: Path) -> None:
    """Also into a net that has not seen a batch yet, and so knows no shapes."""

    def wrapped(seed: int) -> fa.ConditionedDFA:
        model = network(5, 8, 6, 3, seed=seed)
        lifted = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 5)), torch.nn.Conv1d(1, 1, 1), torch.nn.Flatten(), model)
        points = ("3.1", "3.3") if late else "auto"
        return fa.ConditionedDFA(lifted.double() if late else model, points, every=2)

    def steps(net: fa.ConditionedDFA, seeds: range) -> None:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for seed in seeds:
            x, y = batch(seed=seed)
            optimizer.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    whole = wrapped(0)
    steps(whole, range(5))
    torch.save(whole.state_dict(), tmp_path / "state")
    resumed = wrapped(1)
    resumed.load_state_dict(torch.load(tmp_path / "state"))
    for net in (whole, resumed):
        steps(net, range(5, 9))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)


def test_it_is_no_part_of_an_overlap_of_weights() -> None:
    x, y = batch()
    nets = [fa.ConditionedDFA(network(5, 8, 3, seed=seed)) for seed in range(2)]
    for net in nets:
        functional.cross_entropy(net(x), y).backward()
    assert list(fa.cross_seed_overlap([net.state_dict() for net in nets]).layers) == [
        "model.0.weight",
        "model.2.weight",
    ]


def steps_to_one_per_cent(rule: Any, alpha: float, beta: float, seed: int, limit: int) -> int:
    """Train a deep linear net from zero on fresh batches of outputs of this covariance, scaled to a variance of 2."""
    covariance = np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])
    rng = np.random.default_rng([0, seed])
    basis = np.linalg.qr(rng.standard_normal((10, 2)))[0]
    teacher = torch.from_numpy(np.real(sqrtm(2 * covariance / np.trace(covariance))) @ basis.T)
    net = rule(fa.networks.MLP([10, 100, 100, 100, 2], "linear", bias=False).double(), seed=seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(seed)
    for step in range(limit):
        with torch.no_grad():
            if (net(torch.eye(10).double()).T - teacher).square().sum() < 0.01 * teacher.square().sum():
                return step
        x = torch.randn(64, 10, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        ((net(x) - x @ teacher.T).square().sum(1).mean() / 2).backward()
        optimizer.step()
    return limit


def test_ill_conditioned_outputs_are_learned_in_the_steps_of_white_ones() -> None:
    """Without being told their covariance: within 1.2 times, in each of five draws; plain DFA needs over 1.5 times."""
    for seed in range(5):
        white = steps_to_one_per_cent(fa.DFA, 1, 1, seed, 400)
        assert 60 < white < 150
        for alpha, beta in ((0.2, 1), (1, 0.2), (0.2, 0.2)):
            limit = int(1.5 * white) + 1
            assert steps_to_one_per_cent(fa.ConditionedDFA, alpha, beta, seed, limit) < 1.2 * white, (alpha, beta, seed)
            assert steps_to_one_per_cent(fa.DFA, alpha, beta, seed, limit) == limit, (alpha, beta, seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"decay": 1.0}, r"decay must be a number in \[0, 1\), got 1\.0"),
        ({"decay": -0.1}, r"decay must be a number in \[0, 1\), got -0\.1"),
    ],
)
def test_bad_arguments(options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        fa.ConditionedDFA(network(5, 8, 3), **options)


def test_before_the_first_pass_of_a_model_of_unknown_shapes_there_is_no_conditioner() -> None:
    net = fa.ConditionedDFA(torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1), torch.nn.Flatten(), *network(5, 8, 3)))
    with pytest.raises(PointsError, match="the conditioner is not known yet"):
        _ = net.conditioner
