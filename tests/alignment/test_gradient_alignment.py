"""Gradient alignment against the definition written out, and its invariances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.cases.small import dfa_and_batch
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, OutputError


def written_out(net: fa.DFA, x: Tensor, y: Tensor, at: str) -> dict[str, tuple[Tensor, Tensor]]:
    """(δ_BP, δ_DFA) at every point of the tanh network, from the equations."""
    W1, W2, W3 = (net.model.get_parameter(f"{i}.weight").detach() for i in (0, 2, 4))
    b1, b2, b3 = (net.model.get_parameter(f"{i}.bias").detach() for i in (0, 2, 4))
    h1 = torch.tanh(x @ W1.T + b1)
    h2 = torch.tanh(h1 @ W2.T + b2)
    e = (h2 @ W3.T + b3).softmax(-1) - functional.one_hot(y, 3)
    F1, F2 = net.feedback_matrices["1"], net.feedback_matrices["3"]
    g1, g2 = 1 - h1**2, 1 - h2**2
    back2 = e @ W3
    back1 = (back2 * g2) @ W2
    if at == "point":
        return {"1": (back1, e @ F1.T), "3": (back2, e @ F2.T)}
    return {"1": (back1 * g1, (e @ F1.T) * g1), "3": (back2 * g2, (e @ F2.T) * g2)}


@pytest.mark.parametrize("at", ["preactivation", "point"])
def test_cosines_equal_the_definition(at: Any) -> None:
    net, x, y = dfa_and_batch()
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at)
    expected = written_out(net, x, y, at)
    for name, (true, sent) in expected.items():
        cosines = functional.cosine_similarity(true, sent, dim=-1)
        torch.testing.assert_close(measured.per_sample[name], cosines, rtol=1e-10, atol=1e-12)
        assert measured.layers[name] == pytest.approx(float(cosines.mean()), abs=1e-12)
    all_true, all_sent = (torch.cat(side, -1) for side in zip(*expected.values(), strict=True))
    whole = functional.cosine_similarity(all_true, all_sent, dim=-1)
    assert measured.total == pytest.approx(float(whole.mean()), abs=1e-12)
    assert measured.skipped == {"1": 0, "3": 0}


@pytest.mark.parametrize("at", ["preactivation", "point"])
def test_norm_ratios_equal_the_definition(at: Any) -> None:
    net, x, y = dfa_and_batch()
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at)
    for name, (true, sent) in written_out(net, x, y, at).items():
        assert measured.norm_ratios[name] == pytest.approx(float(sent.norm() / true.norm()), rel=1e-10)


def test_at_the_parameters_a_frozen_block_is_skipped() -> None:
    net, x, y = dfa_and_batch()
    net.model.get_submodule("0").requires_grad_(False)
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y, at="parameters")
    assert measured.skipped == {"1": 1, "3": 0}
    assert math.isnan(measured.layers["1"])
    assert not math.isnan(measured.total)


def test_backward_weights_as_feedback_align_perfectly_in_the_top_layer() -> None:
    net, x, y = dfa_and_batch()
    net.feedback_matrices["3"].copy_(net.model.get_parameter("4.weight").detach().T)
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    assert measured.layers["3"] == pytest.approx(1.0, abs=1e-12)
    net.feedback_matrices["3"].mul_(-5)
    assert fa.gradient_alignment(net, functional.cross_entropy, x, y).layers["3"] == pytest.approx(-1.0, abs=1e-12)


def test_scale_of_feedback_and_reduction_of_loss_do_not_matter() -> None:
    net, x, y = dfa_and_batch()
    before = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    net.feedback_matrices["1"].mul_(1e-3)
    after = fa.gradient_alignment(net, lambda o, t: 1e-9 * functional.cross_entropy(o, t, reduction="sum"), x, y)
    assert after.layers == pytest.approx(before.layers, abs=1e-10)


def test_permuting_the_batch_permutes_the_cosines() -> None:
    net, x, y = dfa_and_batch()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    base = fa.gradient_alignment(net, functional.cross_entropy, x, y).per_sample["1"]
    moved = fa.gradient_alignment(net, functional.cross_entropy, x[order], y[order]).per_sample["1"]
    torch.testing.assert_close(moved, base[order], rtol=1e-10, atol=1e-12)


def test_samples_without_a_derivative_are_left_out_and_counted() -> None:
    """A sample whose hidden units are all silent has δ = 0 and no angle; the mean is over the others."""
    net, x, y = dfa_and_batch("relu")
    with torch.no_grad():
        net.model.get_parameter("0.bias").zero_()
    x[:2] = 0.0
    measured = fa.gradient_alignment(net, functional.cross_entropy, x, y)
    assert measured.skipped["1"] >= 2
    assert measured.per_sample["1"][:2].isnan().all()
    kept = measured.per_sample["1"][~measured.per_sample["1"].isnan()]
    assert len(kept) + measured.skipped["1"] == len(x)
    assert measured.layers["1"] == pytest.approx(float(kept.mean()), abs=1e-12)


def test_tiny_gradients_keep_their_angle_in_single_precision() -> None:
    net, x, y = dfa_and_batch()
    exact = fa.gradient_alignment(net, functional.cross_entropy, x, y).layers
    tiny = fa.gradient_alignment(net.float(), lambda o, t: 1e-30 * functional.cross_entropy(o, t), x.float(), y)
    assert tiny.skipped == {"1": 0, "3": 0}
    assert tiny.layers == pytest.approx(exact, abs=1e-5)  # float32 forward passes differ by rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("at", ["preactivation", "point", "parameters"])
def test_half_precision_finds_the_same_angles(dtype: torch.dtype, at: Any) -> None:
    """Errors of some 1e-3, whose squares are below float16's range."""
    net, x, y = dfa_and_batch()
    exact = fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at)
    half = fa.gradient_alignment(net.to(dtype), lambda o, t: functional.cross_entropy(o, t) / 64, x.to(dtype), y, at=at)
    assert half.skipped == exact.skipped
    assert half.layers == pytest.approx(exact.layers, abs=0.05 if dtype == torch.bfloat16 else 0.01)
    assert half.norm_ratios == pytest.approx(exact.norm_ratios, rel=0.1 if dtype == torch.bfloat16 else 0.02)


def test_measuring_leaves_no_gradient_and_training_as_it_was() -> None:
    net, x, y = dfa_and_batch()
    fa.gradient_alignment(net, functional.cross_entropy, x, y)
    assert all(p.grad is None for p in net.parameters())
    functional.cross_entropy(net(x), y).backward()
    with_measurement = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    other, *_ = dfa_and_batch()
    functional.cross_entropy(other(x), y).backward()
    for a, p in zip(with_measurement, other.parameters(), strict=True):
        assert p.grad is not None
        assert torch.equal(a, p.grad)


def test_it_works_within_no_grad_and_below_frozen_layers() -> None:
    net, x, y = dfa_and_batch()
    expected = fa.gradient_alignment(net, functional.cross_entropy, x, y).layers
    net.model.get_submodule("0").requires_grad_(False)
    with torch.no_grad():
        assert fa.gradient_alignment(net, functional.cross_entropy, x, y).layers == pytest.approx(expected, abs=1e-12)


def test_an_ensemble_is_measured_network_by_network() -> None:
    _, x, y = dfa_and_batch()
    ensemble: Any = fa.DFA(fa.networks.EnsembleMLP(3, [5, 8, 6, 3]), seed=2).double()

    def summed(output: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), labels.repeat(3), reduction="sum")

    together = fa.gradient_alignment(ensemble, summed, x, y)
    for i, state in enumerate(ensemble.model.state_dicts()):
        model: Any = fa.networks.MLP([5, 8, 6, 3]).double()
        model.load_state_dict(state)
        alone = fa.gradient_alignment(fa.DFA(model, seed=2), functional.cross_entropy, x, y)
        for name in alone.layers:
            torch.testing.assert_close(together.per_sample[name][i], alone.per_sample[name], rtol=1e-6, atol=1e-8)


def test_a_block_without_parameters_of_its_own_and_a_block_ended_by_its_weights() -> None:
    """Deep linear network, points on the linear layers themselves: pre-activation and point are one."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)).double()
    net, (_, x, y) = fa.DFA(model), dfa_and_batch()
    both = [
        fa.gradient_alignment(net, functional.cross_entropy, x, y, at=at).layers for at in ("preactivation", "point")
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-14)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda o, t: functional.cross_entropy(o, t, reduction="none"), r"got shape \(9,\)"),
        (lambda o, t: functional.cross_entropy(o.detach(), t), "requires_grad=False"),
        (lambda o, t: functional.cross_entropy(o, t) * float("nan"), "derivative at point '3' is not finite"),
    ],
)
def test_a_loss_without_a_usable_gradient_is_refused(loss_fn: Any, message: str) -> None:
    net, x, y = dfa_and_batch()
    with pytest.raises(OutputError, match=message):
        fa.gradient_alignment(net, loss_fn, x, y)


def test_unknown_place_is_refused() -> None:
    net, x, y = dfa_and_batch()
    with pytest.raises(ArgumentError, match="at='input' is unknown; expected one of preactivation, point, parameters"):
        fa.gradient_alignment(net, functional.cross_entropy, x, y, at="input")  # type: ignore[arg-type]
