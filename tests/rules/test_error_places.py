"""Modules at which the error is taken: which Tensor of theirs is meant, and what surrounds a training step."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from tests.cases.heads import INSIDE, TEXT, Causal, InsideCase, causal_loss, loss_entry
from tests.cases.parts import Parts
from tests.cases.places import DIRECT, X, Y, both, logits_and_loss, parts
from tests.cases.small import EXACT, assert_same, hooks_on, left_by_backward
from torch import Tensor, nn
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, OutputError, PointsError


def test_an_entry_of_what_the_place_returns() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, h: Tensor) -> Any:
            return {"logits": self.linear(h), "hidden": h}

    model = Parts(
        lambda m, x: functional.cross_entropy(m.heads(m.gate(m.a(x)))["logits"], Y),
        a=nn.Linear(4, 6), gate=nn.Tanh(), heads=Heads(),
    )  # fmt: skip
    with pytest.raises(OutputError, match=r"error_at 'heads': the output must be a floating-point Tensor .* got dict"):
        fa.DFA(model, points=("gate",), error_at="heads")(X)
    net = fa.DFA(model, points=("gate",), error_at="heads", output="logits")
    check = fa.check_rule(net, lambda loss, _: loss, X, None)
    assert check.worst < 1e-12
    assert check.errors.keys() == {"a.weight", "a.bias", "heads.linear.weight", "heads.linear.bias"}
    with pytest.raises(ArgumentError, match="names several entries, and error_at= says that the error is taken at mod"):
        fa.DFA(net.unwrap(), points=("gate",), error_at="heads", output=("logits", "hidden"))


def test_a_module_whose_name_ends_in_input() -> None:
    layers: dict[str, nn.Module] = {"a": nn.Linear(4, 6), "gate": nn.Tanh(), "head": nn.Sequential()}
    layers["head"].add_module("input", nn.Linear(6, 3))
    model = Parts(lambda m, x: functional.cross_entropy(m.head(m.gate(m.a(x))), Y), **layers)
    net = fa.DFA(model, points=("gate",), error_at="head.input")
    net(X)
    assert net.feedback_matrices["gate"].shape == (6, 3)  # its output
    other = fa.DFA(net.unwrap(), points=("gate",), error_at="head.input.input")
    other(X)
    assert other.feedback_matrices["gate"].shape == (6, 6)


def test_evaluation_and_unwrapping_leave_nothing() -> None:
    net = fa.DFA(parts(logits_and_loss), points=("gate",), error_at="head")
    loss_entry(net(X)).backward()
    with torch.no_grad():
        assert net.eval()(X)["logits"].grad_fn is None
    assert loss_entry(net(X)).requires_grad  # in evaluation mode the rule's graph is the same
    assert hooks_on(net.unwrap()) == []


def test_a_pass_that_is_given_up_holds_nothing() -> None:
    """The graph holds the pass; the pass must not hold the graph, or neither would ever be freed."""
    net = fa.DFA(parts(both), points=("gate",), error_at="head")
    gc.collect()
    gc.disable()
    try:
        output = net(X)
        node = weakref.ref(output["head"].grad_fn)
        kept = weakref.ref(output["beside"])
        del output
        assert kept() is None
        assert node() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("rule", DIRECT)
def test_copies_learn_by_themselves(rule: Any) -> None:
    net = rule(parts(logits_and_loss), points=("gate",), error_at="head")
    early = copy.deepcopy(net)
    loss_entry(net(X)).backward()
    found = [left_by_backward(net)]
    for other in (early, copy.deepcopy(net)):
        other.zero_grad()
        if other is not early:
            other.reset_feedback()
        loss_entry(other(X)).backward()
        found.append(left_by_backward(other))
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["causal", "causal, before the vocabulary", "pooled, masked", "span", "regression"])
def test_compiled_steps_are_the_uncompiled_ones(name: str) -> None:
    case = INSIDE[name]
    found = []
    for compiled in (False, True):
        net = case.wrapped(fa.DFA)
        net(**case.inputs)
        torch.compiler.reset()
        run: Any = torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
        case.loss(run(**case.inputs)).backward()
        found.append(left_by_backward(net))
    assert_same(*found, **EXACT)


def test_autocast() -> None:
    """As with the same loss outside."""
    case = INSIDE["causal"]
    found = []
    for options in ({}, {"error_at": None, "output": "logits"}):
        net = case.wrapped(fa.DFA, **options).float()
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss_entry(net(**TEXT)) if not options else None
            loss = causal_loss(net(TEXT["tokens"]), TEXT) if inside is None else inside
        loss.backward()
        found.append(left_by_backward(net))
    assert_same(*found)


def test_two_passes_before_their_backward_passes() -> None:
    for rule in DIRECT:
        found: list[Any] = []
        for at_once in (True, False):
            net = rule(parts(logits_and_loss), points=("gate",), error_at="head", example_input=X)
            net.model.load_state_dict(parts(logits_and_loss).state_dict() if not found else found[0][1])
            state = copy.deepcopy(net.model.state_dict())
            if at_once:
                first, second = (loss_entry(net(x)) for x in (X, 2 * X))
                first.backward()
                second.backward()
            else:
                before = copy.deepcopy(net)
                loss_entry(net(X)).backward()
                loss_entry(before(2 * X)).backward()
                for mine, other in zip(net.parameters(), before.parameters(), strict=True):
                    mine.grad = None if mine.grad is None else mine.grad + other.grad
            found.append((left_by_backward(net), state))
        assert_same(found[0][0], found[1][0], rtol=1e-6, atol=1e-7)


def test_the_monitor_measures_a_loss_inside() -> None:
    case = INSIDE["causal"]
    net = case.wrapped(fa.DFA)
    monitor = fa.AlignmentMonitor(net, lambda out, _: loss_entry(out), TEXT, None, every=1, conditioning=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(2):
        monitor(step)
        optimizer.zero_grad()
        loss_entry(net(**TEXT)).backward()
        optimizer.step()
    assert len(monitor.records) == 2
    assert monitor.records[-1].conditioning is not None
    descent = fa.alignment.descent(net, lambda out, _: loss_entry(out), TEXT, None, lr=1e-3)
    assert descent.rule < 0


def _loss_of(case: InsideCase, output: Any, _: Any) -> Tensor:
    return case.loss(output)


def test_a_sequential_rule_trains_a_loss_inside_and_its_tools_know_the_place() -> None:
    for name in ("causal", "image", "regression"):
        case = INSIDE[name]
        for rule in (fa.FA, fa.SignSymmetry, fa.KolenPollack):
            net = rule(case.model(), error_at=case.error_at)
            loss = partial(_loss_of, case)
            assert fa.check_rule(net, loss, case.inputs, None).worst < 1e-12
    with pytest.raises(PointsError, match="'haed' is no module of the model; did you mean 'head'"):
        fa.FA(Causal(), error_at="haed")


@pytest.mark.parametrize("rule", [*fa.rules.RULES.values(), fa.rules.DirectRule, fa.rules.SequentialRule])
def test_every_constructor_names_the_arguments(rule: Any) -> None:
    parameters = inspect.signature(rule).parameters
    assert {parameters[name].kind for name in ("error_at", "mask")} == {inspect.Parameter.KEYWORD_ONLY}
