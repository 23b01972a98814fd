"""Modules at which the error cannot be taken, and losses that go around them: what is refused, in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.parts import found
from tests.cases.places import X, Y, around, both, late, logits_and_loss, parts, twice
from tests.cases.small import left_by_backward
from torch import nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, OutputError, PointsError


@pytest.mark.parametrize(
    ("run", "error_at", "kind", "message"),
    [
        (logits_and_loss, "haed", PointsError, "error_at: 'haed' is no module of the model; did you mean 'head'"),
        (logits_and_loss, "haed.input", PointsError, "error_at: 'haed' is no module of the model; did you mean 'head'"),
        (logits_and_loss, "gate", PointsError, "'gate' does not end before 'gate', where the error is taken"),
        (logits_and_loss, (), ArgumentError, r"error_at must be the dotted name of a module, or several, got \(\)"),
        (logits_and_loss, 3, ArgumentError, "error_at must be names of modules, got 3; give a list of names"),
        (logits_and_loss, ("head", "head"), ArgumentError, "error_at=.* names one of them twice; name each once"),
        (logits_and_loss, "beside", OutputError, "error_at 'beside' did not run in this forward pass"),
        (twice, "head", OutputError, "error_at 'head' runs twice in one forward pass, and the error is taken at one"),
        (twice, "head.input", OutputError, "error_at 'head.input' runs twice in one forward pass"),
        (around, "head", OutputError, "error_at 'head' leads to nothing that the model returned"),
        (late, "head", PointsError, "point 'gate' does not end before 'head', where the error is taken"),
    ],
)
def test_places_that_cannot_be_are_told_in_words(run: Any, error_at: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        fa.DFA(parts(run), points=("gate",), error_at=error_at)(X)
    if kind is not ArgumentError:
        words = message.split("' ", 1)[1].split(";")[0].split(",")[0]
        assert any(words in problem for _, problem, _ in found(parts(run), ("gate",), X, error_at=error_at))


def test_a_place_that_a_later_pass_runs_twice_or_not_at_all() -> None:
    model = parts(logits_and_loss)
    net = fa.DFA(model, points=("gate",), error_at="head", example_input=X)
    model.run = twice
    with pytest.raises(OutputError, match="'head' runs twice in one forward pass"):
        net(X)
    model.run = around
    with pytest.raises(OutputError, match="'head' leads to nothing that the model returned"):
        net(X)
    model.run = late
    with pytest.raises(PointsError, match="point 'gate' does not end before 'head'"):
        net(X)
    model.run, model.head = logits_and_loss, nn.Linear(6, 3)
    with pytest.raises(OutputError, match=r"'head' did not run in this forward pass.*replaced, wrap the model again"):
        net(X)


def test_a_loss_around_the_place_is_told_in_the_backward_pass() -> None:
    """And a loss that passes the place, and something else as well, is not."""
    net = fa.DFA(parts(both), points=("gate",), error_at="head")
    output = net(X)
    with pytest.raises(OutputError, match=r"'head' is not passed by this loss, so the backward pass sends no error"):
        functional.cross_entropy(output["beside"], Y).backward()
    net.zero_grad()
    output = net(X)
    (functional.cross_entropy(output["head"], Y) + functional.cross_entropy(output["beside"], Y)).backward()
    gradients = left_by_backward(net)
    assert gradients.keys() == {f"{name}.{kind}" for name in ("a", "head", "beside") for kind in ("weight", "bias")}
    other = fa.DFA(net.unwrap(), points=("gate",), output="head")
    other.zero_grad()
    functional.cross_entropy(other(X)["head"], Y).backward()
    assert torch.equal(gradients["a.weight"], left_by_backward(other)["a.weight"])
    # Within backprop() any gradient can be taken.
    with other.backprop():
        functional.cross_entropy(other(X)["beside"], Y).backward()


def test_the_first_of_two_places_that_a_loss_goes_around() -> None:
    net: Any = fa.DFA(parts(both), points=("gate",), error_at=("head", "beside"))
    output = net(X)
    functional.cross_entropy(output["beside"], Y).backward()
    e = (output["beside"].softmax(-1) - functional.one_hot(Y, 3)).detach() / 5
    F = net.feedback_matrices["gate"][:, 3:]
    h = torch.tanh(net.model.a(X)).detach()
    torch.testing.assert_close(net.model.a.weight.grad, ((e @ F.T) * (1 - h**2)).T @ X)


def test_recompute_is_refused_with_places() -> None:
    with pytest.raises(ArgumentError, match="recompute=True with error_at='head'"):
        fa.DFA(parts(logits_and_loss), points=("gate",), error_at="head", recompute=True)
