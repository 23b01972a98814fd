"""Modules at which the error is taken: what is refused, in words, and what surrounds a training step."""

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
from tests.cases.models import floats, labels
from tests.cases.parts import Parts, found
from tests.cases.small import EXACT, assert_same, hooks_on, left_by_backward
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import CheckpointError, checkpoint

import feedalign as fa
from feedalign.errors import ArgumentError, OutputError, PointsError

X, Y = floats(5, 4), labels(5)
LEARNED: list[Any] = [fa.DFA, fa.ConditionedDFA, fa.DirectKolenPollack]


def parts(run: Any) -> Any:
    layers = {"a": nn.Linear(4, 6), "gate": nn.Tanh(), "head": nn.Linear(6, 3), "beside": nn.Linear(6, 3)}
    return Parts(run, **layers)


def logits_and_loss(m: Any, x: Tensor) -> Any:
    logits = m.head(m.gate(m.a(x)))
    return {"logits": logits, "loss": functional.cross_entropy(logits, Y)}


def twice(m: Any, x: Tensor) -> Any:
    h = m.gate(m.a(x))
    return functional.cross_entropy(m.head(h) + m.head(2 * h), Y)


def sometimes(m: Any, x: Tensor) -> Any:
    h = m.gate(m.a(x))
    return functional.cross_entropy((m.head if m.training else m.beside)(h), Y)


def around(m: Any, x: Tensor) -> Any:
    h = m.gate(m.a(x))
    m.head(h)
    return functional.cross_entropy(m.beside(h), Y)


def both(m: Any, x: Tensor) -> Any:
    h = m.gate(m.a(x))
    return {"head": m.head(h), "beside": m.beside(h)}


def late(m: Any, x: Tensor) -> Any:
    return functional.cross_entropy(m.beside(m.gate(2 * m.head(m.a(x)) @ m.head.weight)), Y)


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


def test_recompute_is_refused_with_places() -> None:
    with pytest.raises(ArgumentError, match="recompute=True with error_at='head'"):
        fa.DFA(parts(logits_and_loss), points=("gate",), error_at="head", recompute=True)


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


@pytest.mark.parametrize("rule", LEARNED)
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


class Checkpointed(Causal):
    """The blocks, or the head and the loss too, are run again in the backward pass."""

    def __init__(self, save: str) -> None:
        super().__init__()
        self.save = save

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Any:
        if self.save == "all":
            return checkpoint(super().forward, tokens, labels, use_reentrant=False)
        h = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False) if self.save == "blocks" else block(h)
        top = checkpoint(self.top, h, labels, use_reentrant=False) if self.save == "top" else self.top(h, labels)
        return dict(zip(("loss", "logits"), top, strict=True))

    def top(self, h: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        logits = self.head(self.norm(h))
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), logits


@pytest.mark.parametrize("error_at", ["head", "head.input"])
@pytest.mark.parametrize(
    ("rule", "save"),
    [*((rule, "blocks") for rule in LEARNED), *((rule, save) for rule in LEARNED[:2] for save in ("top", "all"))],
)
def test_activation_checkpointing_changes_no_gradient(rule: Any, save: str, error_at: str) -> None:
    found = []
    for kept in ("nothing", save):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = Checkpointed(kept).double()
        net = rule(model, points=("blocks.0", "blocks.1"), error_at=error_at)
        for _ in range(2):
            net.zero_grad()
            loss_entry(net(**TEXT)).backward()
        found.append({**left_by_backward(net), **net.feedback_matrices})
    assert_same(*found)


@pytest.mark.parametrize("save", ["top", "all"])
def test_learned_feedback_does_not_go_with_a_checkpoint_around_the_place(save: str) -> None:
    """It keeps activations there, of which the second run knows nothing; torch says so."""
    net = fa.DirectKolenPollack(Checkpointed(save), points=("blocks.0", "blocks.1"), error_at="head")
    with pytest.raises(CheckpointError, match="A different number of tensors was saved"):
        loss_entry(net(**TEXT)).backward()


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
    for rule in LEARNED:
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
