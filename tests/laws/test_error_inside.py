"""The error taken inside of the forward pass: a loss that the model computes itself trains like one outside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.heads import INSIDE, Causal, Regression, Span, loss_entry
from tests.cases.models import DIRECT, floats
from tests.cases.small import EXACT, ROUNDING, assert_same, left_by_backward
from torch import Tensor
from torch.nn import functional

import feedalign as fa

COMPARABLE = [name for name, case in INSIDE.items() if case.outside is not None]


@pytest.mark.parametrize("rule", DIRECT)
@pytest.mark.parametrize("name", COMPARABLE)
def test_a_loss_inside_gives_what_a_loss_outside_gives(name: str, rule: str) -> None:
    """Twice, so that what a rule has learned in the first pass counts."""
    case = INSIDE[name]
    found: list[dict[str, Tensor]] = []
    for inside in (True, False):
        net = case.wrapped(DIRECT[rule], **({} if inside else {"error_at": None, "output": case.output}))
        inputs = {key: x for key, x in case.inputs.items() if inside or key not in ("labels", "target")}
        for _ in range(2):
            net.zero_grad()
            output = net(**inputs)
            assert case.outside is not None
            loss = case.loss(output) if inside else case.outside(output, case.inputs)
            loss.backward()
        found.append(left_by_backward(net) | {f"feedback.{k}": F for k, F in net.feedback_matrices.items()})
    assert_same(*found, **EXACT)


@pytest.mark.parametrize("name", INSIDE)
def test_the_slow_reference_agrees(name: str) -> None:
    case = INSIDE[name]
    for rule in DIRECT.values():
        check = fa.check_rule(case.wrapped(rule), lambda out, _: case.loss(out), case.inputs, None)
        assert check.worst < ROUNDING


@pytest.mark.parametrize("name", INSIDE)
def test_every_parameter_learns_and_validate_says_so(name: str) -> None:
    case = INSIDE[name]
    net = case.wrapped(fa.DFA)
    case.loss(net(**case.inputs)).backward()
    used = {n for n, _ in case.model().named_parameters()}
    if "span" in name:  # of the heads, this model uses one or the other
        used -= {n for n in used if n.startswith(("start", "end") if net.model.heads == 1 else "both")}
    assert left_by_backward(net).keys() == used
    if "tied" not in name and name != "causal, before the vocabulary":
        problems = fa.validate(
            net.unwrap(), case.points, error_at=case.error_at, batch_dims=None, **case.inputs
        ).problems
        assert {problem.name.partition(".")[0] for problem in problems} <= {"start", "end", "both"}


@pytest.mark.parametrize("name", COMPARABLE)
@pytest.mark.parametrize("at", ["point", "preactivation", "parameters"])
def test_the_measures_see_the_same_error(name: str, at: Any) -> None:
    case = INSIDE[name]
    inside = case.wrapped(fa.DFA)
    outside = case.wrapped(fa.DFA, error_at=None, output=case.output)
    few = {key: x for key, x in case.inputs.items() if key not in ("labels", "target")}
    y = case.inputs

    def loss_outside(output: Any, inputs: Any) -> Tensor:
        assert case.outside is not None
        return case.outside(output, inputs)

    found = fa.gradient_alignment(inside, lambda out, _: case.loss(out), case.inputs, None, at=at)
    expected = fa.gradient_alignment(outside, loss_outside, few, y, at=at)
    assert found.total == pytest.approx(expected.total, rel=1e-9)
    assert found.norm_ratios == pytest.approx(expected.norm_ratios, rel=1e-9)
    errors = fa.alignment.output_errors(inside, lambda out, _: case.loss(out), case.inputs, None)
    torch.testing.assert_close(errors, fa.alignment.output_errors(outside, loss_outside, few, y), **EXACT)


def test_the_error_before_the_vocabulary_is_that_of_the_logits_through_the_readout() -> None:
    """F' at the head's input is F = F' Wᵀ at the logits: F' e' = F' Wᵀ e."""
    case = INSIDE["causal"]
    before = case.wrapped(fa.DFA, error_at="head.input", seed=3)
    W = before.model.head.weight.detach()  # [C, n]
    case.loss(before(**case.inputs)).backward()
    behind = case.wrapped(fa.DFA)
    case.loss(behind(**case.inputs))
    for point, F in before.feedback_matrices.items():
        assert F.shape == (8, 8)
        behind.feedback_matrices[point].copy_(F @ W.T)
    behind.zero_grad()
    case.loss(behind(**case.inputs)).backward()
    assert_same(left_by_backward(before), left_by_backward(behind), **EXACT)


def test_aligned_feedback_at_the_heads_input_is_backprop_of_the_last_block() -> None:
    """The Jacobian from the last point to the place is the identity, where nothing lies between them."""
    case = INSIDE["causal, post-norm, tied"]
    net = fa.DFA(
        Causal(False, True).double(), ("blocks.1",), fa.feedback.Aligned(), error_at="head.input", batch_dims=2
    )
    check = fa.check_rule(net, lambda out, _: case.loss(out), case.inputs, None)
    assert check.worst < ROUNDING
    assert check.cosines["embed.weight"] == pytest.approx(1)
    net(**case.inputs)
    F = net.feedback_matrices["blocks.1"]
    torch.testing.assert_close(F, torch.eye(8, dtype=F.dtype))


def test_several_heads_are_one_error_side_by_side() -> None:
    """The model that returns both logits as one Tensor is sent the same through the same matrix."""

    class Joined(Span):
        def forward(self, x: Tensor, labels: Any = None) -> Any:
            return self.both(self.body(x))

    case = INSIDE["span"]
    net = case.wrapped(fa.DFA)
    case.loss(net(**case.inputs)).backward()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        joined = Joined().double()
    whole = fa.DFA(joined, ("body",), batch_dims=1)
    x, (first, second) = case.inputs["x"], case.inputs["labels"]
    whole(x)
    # There the outputs are (token, head), here (head, token).
    F = net.feedback_matrices["body"].unflatten(1, (2, 5)).mT.flatten(1)
    whole.feedback_matrices["body"].copy_(F)
    assert net.error_tap.batch_dims is None
    start, end = whole(x).unbind(-1)
    whole.zero_grad()
    (functional.cross_entropy(start, first) + 2 * functional.cross_entropy(end, second)).backward()
    assert_same(left_by_backward(net), left_by_backward(whole), **EXACT)


@pytest.mark.parametrize("name", ["span", "span, two heads"])
def test_a_loss_of_one_head_is_an_error_of_zero_at_the_other(name: str) -> None:
    case = INSIDE[name]
    found = []
    for options in ({}, {"error_at": None, "output": case.output}):
        net = case.wrapped(fa.DFA, **options)
        output = net(case.inputs["x"])
        functional.cross_entropy(output.end, case.inputs["labels"][0]).backward()
        gradients = left_by_backward(net)
        assert gradients["body.0.weight"].any()
        found.append(gradients)
        if name == "span, two heads":  # the head that the loss does not use is not even touched by an optimizer
            assert "start.weight" not in gradients
    assert_same(*found, **EXACT)


def test_a_model_that_returns_its_loss_alone() -> None:
    class Alone(Regression):
        def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
            return super().forward(x, target)[0]

    inputs = {"x": floats(5, 4), "target": floats(5)}
    net = fa.DFA(Alone(), ("gate",), error_at="value")
    net(**inputs).backward()
    other = fa.DFA(Regression(), ("gate",), error_at="value")
    other.model.load_state_dict(net.model.state_dict())
    loss_entry(other(**inputs)).backward()
    assert_same(left_by_backward(net), left_by_backward(other))
