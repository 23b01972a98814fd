"""Direct rules that send less than the error, blocks that stay as they are, and rules by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, assert_same, batch, gradients, network
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, PointsError
from feedalign.rules import RULES, get


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rule", ["sign", "drtp"])
def test_signs_and_targets_written_out(rule: str, reduction: Any) -> None:
    """Cross-entropy: e < 0 at the target, > 0 elsewhere; so sign(e) = 1 − 2·onehot, and DRTP sends −onehot."""
    model, (x, y) = network(5, 8, 6, 3), batch()
    true = gradients(model, x, y, reduction)
    net = fa.DFA(model, error="sign", reduction=reduction) if rule == "sign" else fa.DRTP(model, reduction=reduction)
    found = gradients(net, x, y, reduction)
    target = functional.one_hot(y, 3).double()
    message = (1 - 2 * target if rule == "sign" else -target) / (len(y) if reduction == "mean" else 1)
    h1 = torch.tanh(model[0](x)).detach()
    delta = message @ net.feedback_matrices["1"].T * (1 - h1**2)
    torch.testing.assert_close(found["0.weight"], delta.T @ x, **EXACT)
    torch.testing.assert_close(found["4.weight"], true["4.weight"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "make", [lambda m, r: fa.DFA(m, error="sign", reduction=r), lambda m, r: fa.DRTP(m, reduction=r)]
)
def test_with_the_losss_reduction_summed_is_n_times_mean_in_every_layer(make: Any) -> None:
    x, y = batch()
    mean = gradients(make(network(5, 8, 6, 3), "mean"), x, y, "mean")
    total = gradients(make(network(5, 8, 6, 3), "sum"), x, y, "sum")
    for name in mean:
        torch.testing.assert_close(total[name], len(y) * mean[name], **EXACT)


def test_gradient_alignment_is_that_of_what_the_rule_sends() -> None:
    x, y = batch()
    model = network(5, 8, 3)
    F = fa.feedback.FromArray(model[2].weight.detach().T)
    true = fa.gradient_alignment(fa.DFA(model, feedback=F), functional.cross_entropy, x, y)
    sign = fa.gradient_alignment(fa.DFA(model, feedback=F, error="sign"), functional.cross_entropy, x, y)
    assert true.total == pytest.approx(1)
    assert sign.total < 0.999


# Torch's own tracing of an autograd function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"error": "sign"}])
def test_compiled_without_graph_breaks(options: Any) -> None:
    x, y = batch()
    net = fa.DFA(network(5, 8, 6, 3), **options)
    expected = gradients(net, x, y)
    compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert_same(gradients(compiled, x, y), expected, **EXACT)


def test_frozen_blocks_stay_and_everything_else_gets_the_true_gradient() -> None:
    model, (x, y) = network(5, 8, 6, 4, 3), batch()
    true = gradients(model, x, y)
    found = gradients(fa.Frozen(model), x, y)
    assert set(found) == {"0.weight", "0.bias", "6.weight", "6.bias"}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, true[name], rtol=0, atol=0)
    assert set(true) - set(gradients(fa.Frozen(model, blocks="1"), x, y)) == {"0.weight", "0.bias"}
    assert all(parameter.requires_grad for parameter in model.parameters())
    net = fa.Frozen(model)
    with net.backprop():
        assert set(gradients(net, x, y)) == set(true)


def test_frozen_needs_a_block_to_freeze() -> None:
    with pytest.raises(ArgumentError, match="'1' the only point; give blocks="):
        fa.Frozen(network(5, 8, 3))
    with pytest.raises(ArgumentError, match="'2' is none of '1', '3'"):
        fa.Frozen(network(5, 8, 6, 3), blocks=("2",))


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_is_found_by_name_and_has_one_shape_of_constructor(name: str) -> None:
    x, y = batch()
    rule = get(name)
    net = rule(network(5, 8, 6, 3), "auto", fa.feedback.Rademacher(), 3, example_input=x)
    assert net.feedback.seed == 3
    functional.cross_entropy(net(x), y).backward()
    with pytest.raises(PointsError, match="already wrapped"):
        rule(net)


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ArgumentError, match="rule='bp' is unknown; expected one of backprop, conditioned-dfa, dfa"):
        get("bp")
    with pytest.raises(ArgumentError, match="error='other' is unknown; expected one of true, sign"):
        fa.DFA(network(5, 8, 3), error="other")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="reduction='none' is unknown"):
        fa.DRTP(network(5, 8, 3), reduction="none")  # type: ignore[arg-type]
