"""Several passes for one step, and what loops do between a backward pass and the step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.small import EXACT, FIXED, FIXED_AND_LEARNED, assert_same, batch, gradients, left_by_backward, network
from torch import Tensor
from torch.nn import functional

from feedalign.errors import ArgumentError


@pytest.mark.parametrize("rule", FIXED)
def test_gradients_accumulated_over_parts_are_those_of_the_whole_batch(rule: Any) -> None:
    x, y = batch(12)
    net = rule(network())
    whole = gradients(net, x, y)
    net.zero_grad()
    for part in range(3):
        rows = slice(4 * part, 4 * part + 4)
        (functional.cross_entropy(net(x[rows]), y[rows]) / 3).backward()
    assert_same(left_by_backward(net), whole, **EXACT)


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_several_forward_passes_before_their_backward_passes(rule: Any) -> None:
    """Each backward pass belongs to its own forward pass; learned feedback is used as it was then."""
    (x, y), (u, v) = batch(seed=0), batch(seed=1)
    net = rule(network())
    losses = functional.cross_entropy(net(x), y), functional.cross_entropy(net(u), v)
    losses[0].backward()
    assert_same(left_by_backward(net), gradients(rule(network()), x, y))
    net.zero_grad()
    losses[1].backward()
    assert_same(left_by_backward(net), gradients(rule(network()), u, v))


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_the_output_may_be_worked_on_in_place(rule: Any) -> None:
    x, y = batch()
    found = []
    for halved in (Tensor.mul_, Tensor.mul):
        net = rule(network())
        functional.cross_entropy(halved(net(x), 0.5), y).backward()
        found.append(left_by_backward(net))
    assert_same(*found)


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_clipping_shortens_the_whole_update_and_no_feedback(rule: Any) -> None:
    x, y = batch()
    net = rule(network())
    free = gradients(net, x, y)
    feedback = {name: matrix.clone() for name, matrix in net.feedback_matrices.items()}
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1e-2)
    torch.testing.assert_close(norm, torch.cat([g.flatten() for g in free.values()]).norm(), **EXACT)
    clipped = {name: gradient * 1e-2 / (norm + 1e-6) for name, gradient in free.items()}
    assert_same(left_by_backward(net), clipped, **EXACT)
    assert_same(net.feedback_matrices, feedback)


@pytest.mark.parametrize("rule", FIXED)
def test_no_optimizer_moves_feedback(rule: Any) -> None:
    """Weight decay alone, here without any gradient, would shrink whatever a group holds."""
    net = rule(network())
    feedback = {name: matrix.clone() for name, matrix in net.feedback_matrices.items()}
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.5},
        {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        gradients(net, *batch(seed=step))
        optimizer.step()
    assert_same(net.feedback_matrices, feedback)
    assert not any(matrix.requires_grad for matrix in net.feedback_matrices.values())


@pytest.mark.parametrize("rule", FIXED_AND_LEARNED)
def test_transforms_of_functions_are_refused_in_words(rule: Any) -> None:
    """And not left out of the graph. Torch's own words would name neither the rule nor what to do instead."""
    net, (x, y) = rule(network()), batch()
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def loss(given: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(torch.func.functional_call(net, given, (x,)), y)

    with pytest.raises(ArgumentError, match=rf"{rule.__name__} changes what loss\.backward\(\).*torch\.autograd\.grad"):
        torch.func.grad(loss)(parameters)
