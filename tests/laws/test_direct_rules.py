"""The exact identities of direct feedback alignment, in float64 against slow references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases.small import EXACT, batch, gradients, network
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa


def reference_dfa(net: fa.DFA, x: Tensor, y: Tensor, activation: str, reduction: str) -> dict[str, Tensor]:
    """δ_l = (F_l e) ⊙ g'(a_l), ΔW_l = Σ_batch δ_l h_{l−1}ᵀ, written out for an MLP with biases."""
    slope: Any = {"tanh": lambda a: 1 - a.tanh() ** 2, "relu": lambda a: (a > 0).to(a), "linear": torch.ones_like}[
        activation
    ]
    act: Any = {"tanh": torch.tanh, "relu": torch.relu, "linear": lambda a: a}[activation]
    linears = [m for m in net.model.children() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        hidden, pre = [x], []
        for linear in linears:
            pre.append(hidden[-1] @ linear.weight.T + linear.bias)
            hidden.append(act(pre[-1]))
        error = pre[-1].softmax(-1) - functional.one_hot(y, pre[-1].shape[-1])
        if reduction == "mean":
            error = error / len(x)
        grads = {}
        for i, feedback in enumerate([*net.feedback_matrices.values(), None]):
            delta = error if feedback is None else (error @ feedback.T) * slope(pre[i])
            grads[f"{2 * i}.weight"] = delta.T @ hidden[i]
            grads[f"{2 * i}.bias"] = delta.sum(0)
    return grads


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=3, max_size=5),
    n=st.integers(1, 5),
    activation=st.sampled_from(["tanh", "relu", "linear"]),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 100),
)
def test_every_gradient_equals_the_rule_written_out(
    widths: list[int], n: int, activation: str, reduction: str, seed: int
) -> None:
    sizes = [*widths, 3]
    net = fa.DFA(network(*sizes, activation=activation, seed=seed), seed=seed)
    x, y = batch(n, seed, inputs=sizes[0])
    expected = reference_dfa(net, x, y, activation, reduction)
    for name, gradient in gradients(net, x, y, reduction).items():
        torch.testing.assert_close(gradient, expected[name], **EXACT)


def test_the_readout_learns_as_autograd_says_and_hidden_layers_do_not() -> None:
    x, y = batch()
    model: Any = network(5, 8, 6, 3)
    true = gradients(model, x, y)
    dfa = gradients(fa.DFA(model), x, y)
    for name in ("4.weight", "4.bias"):
        torch.testing.assert_close(dfa[name], true[name], rtol=0, atol=0)
    for name in ("0.weight", "2.weight"):
        assert not torch.allclose(dfa[name], true[name], rtol=0.1)


def with_feedback(net: fa.DFA, **matrices: Tensor) -> fa.DFA:
    for name, matrix in matrices.items():
        net.feedback_matrices[name[1:]].copy_(matrix)
    return net


def test_one_hidden_layer_with_the_transposed_readout_is_backprop() -> None:
    x, y = batch()
    model: Any = network(5, 8, 3)
    true = gradients(model, x, y)
    net = with_feedback(fa.DFA(model), _1=model[2].weight.detach().T)
    for name, gradient in gradients(net, x, y).items():
        torch.testing.assert_close(gradient, true[name], **EXACT)


def test_a_deep_linear_network_with_chained_transposes_is_backprop() -> None:
    x, y = batch()
    model: Any = network(5, 8, 6, 4, 3, activation="linear")
    true = gradients(model, x, y)
    W2, W3, W4 = (model[i].weight.detach() for i in (2, 4, 6))
    net = with_feedback(fa.DFA(model), _1=(W4 @ W3 @ W2).T, _3=(W4 @ W3).T, _5=W4.T)
    for name, gradient in gradients(net, x, y).items():
        torch.testing.assert_close(gradient, true[name], **EXACT)


def test_permuting_hidden_units_permutes_the_update() -> None:
    x, y = batch()
    order = torch.tensor([3, 0, 2, 1, 4])
    one: Any = network(5, 5, 6, 3)
    other: Any = network(5, 5, 6, 3)
    with torch.no_grad():
        other[0].weight.copy_(one[0].weight[order])
        other[0].bias.copy_(one[0].bias[order])
        other[2].weight.copy_(one[2].weight[:, order])
    net = fa.DFA(one)
    moved = with_feedback(fa.DFA(other), _1=net.feedback_matrices["1"][order])
    base, permuted = gradients(net, x, y), gradients(moved, x, y)
    torch.testing.assert_close(permuted["0.weight"], base["0.weight"][order], **EXACT)
    torch.testing.assert_close(permuted["2.weight"], base["2.weight"][:, order], **EXACT)
    torch.testing.assert_close(permuted["4.weight"], base["4.weight"], **EXACT)


@pytest.mark.parametrize("n", [1, 7])
def test_summed_loss_is_n_times_the_mean_loss_in_every_layer(n: int) -> None:
    x, y = batch(n)
    net = fa.DFA(network(5, 8, 6, 3))
    mean, total = gradients(net, x, y, "mean"), gradients(net, x, y, "sum")
    for name in mean:
        torch.testing.assert_close(total[name], n * mean[name], **EXACT)


def test_two_half_batches_accumulate_to_the_whole() -> None:
    x, y = batch(8)
    net = fa.DFA(network(5, 8, 6, 3))
    whole = gradients(net, x, y, "sum")
    net.zero_grad()
    for part in (slice(0, 3), slice(3, 8)):
        functional.cross_entropy(net(x[part]), y[part], reduction="sum").backward()
    for name, parameter in net.model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], **EXACT)


def test_scaling_the_feedback_scales_hidden_updates_alone() -> None:
    x, y = batch()
    net = fa.DFA(network(5, 8, 6, 3))
    before = gradients(net, x, y)
    with_feedback(net, _1=2 * net.feedback_matrices["1"])
    after = gradients(net, x, y)
    torch.testing.assert_close(after["0.weight"], 2 * before["0.weight"], **EXACT)
    for name in ("2.weight", "4.weight"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


@pytest.mark.parametrize("rule", [fa.DFA, fa.ReadoutOnly])
def test_within_backprop_every_rule_gives_the_true_gradient(rule: Any) -> None:
    x, y = batch()
    model: Any = network(5, 8, 6, 3)
    true = gradients(model, x, y)
    net = rule(model)
    with net.backprop():
        inside = gradients(net, x, y)
    for name, gradient in inside.items():
        torch.testing.assert_close(gradient, true[name], rtol=0, atol=0)
    assert not torch.equal(gradients(net, x, y).get("0.weight", torch.zeros(8, 5)), true["0.weight"])


def test_backprop_as_a_rule_is_autograd() -> None:
    x, y = batch()
    model: Any = network(5, 8, 6, 3)
    true = gradients(model, x, y)
    for name, gradient in gradients(fa.Backprop(model), x, y).items():
        torch.testing.assert_close(gradient, true[name], rtol=0, atol=0)


def test_readout_only_trains_what_lies_after_the_last_point() -> None:
    x, y = batch()
    model: Any = network(5, 8, 6, 3)
    true = gradients(model, x, y)
    trained = gradients(fa.ReadoutOnly(model), x, y)
    assert set(trained) == {"4.weight", "4.bias"}
    torch.testing.assert_close(trained["4.weight"], true["4.weight"], rtol=0, atol=0)


def test_the_output_is_the_models_own() -> None:
    x, _ = batch()
    model: Any = network(5, 8, 6, 3)
    expected = model(x)
    for rule in (fa.DFA, fa.ReadoutOnly, fa.Backprop):
        torch.testing.assert_close(rule(model)(x), expected, rtol=0, atol=0)


def test_batch_norm_convolution_and_pooling_learn_from_the_point_that_ends_their_block() -> None:
    """A convolutional block's gradient is its own backprop from (F e) at the point, nothing from above."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ).double()
    x = torch.randn(5, 2, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (5,), generator=generator)
    net = fa.DFA(model, example_input=x)
    assert net.points == ("4",)
    found = gradients(net, x, y)
    model.zero_grad()
    hidden = model[:5](x)
    output = model[5](hidden.detach())
    (error,) = torch.autograd.grad(functional.cross_entropy(output, y), output)
    hidden.backward(error @ net.feedback_matrices["4"].T)
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        torch.testing.assert_close(found[name], model.get_parameter(name).grad, **EXACT)


def test_a_token_gets_its_own_error() -> None:
    """Outputs [batch, tokens, classes]: the same as all tokens in one long batch."""
    generator = torch.Generator().manual_seed(0)
    net = fa.DFA(network(5, 8, 6, 3))
    x = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (12,), generator=generator)
    flat = gradients(net, x.flatten(0, 1), y)
    net.zero_grad()
    functional.cross_entropy(net(x).flatten(0, 1), y).backward()
    for name, parameter in net.model.named_parameters():
        torch.testing.assert_close(parameter.grad, flat[name], **EXACT)
