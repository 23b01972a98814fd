"""Models that return more than one Tensor: where the error is taken, and what the other entries learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.models import CASES, DIRECT, cross_entropy, floats, labels
from tests.cases.outputs import MAKERS, Structured, flat
from tests.cases.small import ROUNDING
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign.errors import ArgumentError, FeedbackShapeError, OutputError, PointsError


def test_everything_else_in_an_output_is_the_same_object() -> None:
    cache, frozen = object(), (1, [2])
    model = Structured(lambda logits, h: {"logits": logits, "cache": cache, "frozen": frozen, "kept": [h]})
    seen: list[Any] = []
    model.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    output = fa.DFA(model, points=("gate",), output="logits", example_input=floats(5, 4))(floats(5, 4))
    own = seen[-1]
    assert output is not own
    assert output.keys() == own.keys()
    assert [key for key in own if output[key] is own[key]] == ["cache", "frozen", "kept"]


# Torch's own tracing of an autograd function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["dict", "tuple", "named tuple", "dataclass"])
def test_a_structured_output_compiles(name: str) -> None:
    case = CASES[name]
    gradients = []
    for compiled in (False, True):
        net = fa.DFA(case.model(), case.points, example_input=case.x, **case.options)
        torch.compiler.reset()
        run = torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
        case.loss(run(case.x), case.y).backward()
        gradients.append(net.model.get_parameter("hidden.weight").grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", MAKERS)
def test_other_entries_pass_no_point_and_train_their_own_head(name: str) -> None:
    """Of a loss that uses them too, the hidden layer gets F e of the one entry, the other head its true gradient."""
    case = CASES[name]
    net = case.wrapped().double()
    model, x = net.model, case.x.double()
    h = torch.tanh(model.hidden(x)).detach()
    logits = model.readout(h)
    (error,) = torch.autograd.grad(functional.cross_entropy(logits, case.y), logits)
    delta = (error @ net.feedback_matrices["gate"].T) * (1 - h**2)
    output = net(x)
    beside = next(tensor for tensor in flat(output) if tensor.shape == (5, 2))
    (case.loss(output, case.y) + beside.square().sum()).backward()
    torch.testing.assert_close(model.hidden.weight.grad, delta.T @ x, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(model.aux.weight.grad, 2 * model.aux(h).T @ h, rtol=ROUNDING, atol=ROUNDING)
    check = fa.check_rule(
        net, lambda out, y: case.loss(out, y) + next(t for t in flat(out) if t.shape == (5, 2)).square().sum(),
        x, case.y,
    )  # fmt: skip
    assert check.worst < ROUNDING


def test_what_the_model_makes_of_the_entry_elsewhere_is_no_part_of_the_error() -> None:
    class WithProbabilities(Structured):
        def forward(self, x: Tensor) -> Any:
            logits = self.readout(self.gate(self.hidden(x)))
            return {"logits": logits, "again": logits, "p": logits.softmax(-1)}

    model: Any = WithProbabilities(lambda logits, _: logits)
    net = fa.DFA(model, points=("gate",), output="logits")
    x = floats(5, 4)

    def learns(entry: str) -> list[str]:
        net.zero_grad()
        net(x)[entry].square().sum().backward()
        return [name for name, p in model.named_parameters() if p.grad is not None and name.endswith("weight")]

    with pytest.raises(OutputError, match="is not passed by this loss"):
        learns("p")
    assert learns("again") == ["hidden.weight", "readout.weight"]  # the entry itself, under another key
    check = fa.check_rule(net, lambda out, _: out["p"].square().sum() + out["logits"].sum(), x, None)
    assert check.worst < ROUNDING


def test_a_jacobian_is_taken_of_the_entry() -> None:
    """It is the transposed readout, so that the rule is backprop."""
    case = CASES["dict"]
    net = fa.DFA(case.model(), case.points, fa.feedback.Aligned(), example_input=case.x, **case.options)
    torch.testing.assert_close(net.feedback_matrices["gate"], net.model.get_parameter("readout.weight").T)
    cosines = fa.check_rule(net, case.loss, case.x, case.y).cosines
    assert cosines["hidden.weight"] == pytest.approx(1)


def test_a_jacobian_needs_a_point_that_the_output_depends_on() -> None:
    class Beside(Structured):
        def forward(self, x: Tensor) -> Tensor:
            h = self.hidden(x)
            self.gate(h)
            out: Tensor = self.readout(h)
            return out

    with pytest.raises(PointsError, match="point 'gate' gives an activation of which nothing reaches the output"):
        fa.DFA(Beside(MAKERS["dict"][0]), ("gate",), fa.feedback.Aligned())(floats(5, 4))


@pytest.mark.parametrize("rule", [fa.FA, fa.SignSymmetry, fa.KolenPollack, fa.Frozen])
def test_other_rules_take_the_options_too(rule: Any) -> None:
    model = Structured(MAKERS["dict"][0])
    options: dict[str, Any] = {"points": ("readout", "aux")}
    if rule is fa.Frozen:
        options = {"points": ("gate",), "blocks": ("gate",)}
    net = rule(model, output="logits", **options)
    check = fa.check_rule(net, lambda out, y: functional.cross_entropy(out["logits"], y), floats(5, 4), labels(5))
    assert check.worst < ROUNDING
    with pytest.raises(OutputError, match="is a dict without the entry 'logit'"):
        rule(model, output="logit", **options)(floats(5, 4))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        ("tuple", {}, r"output must be .* got tuple; output= says which entry carries the error, choose from: 0, 1"),
        ("dict", {"output": "logit"}, r"is a dict without the entry 'logit'; .*'logits', 'aux', 'none'"),
        ("dict", {"output": "none"}, "entry 'none' must be a floating-point Tensor .*, got NoneType"),
        ("dict", {"output": "aux"}, "entry 'aux' must be .*, got tuple; .*choose from: 0, 1"),
        ("tuple", {"output": 2}, "is a tuple without the entry 2; .*choose from: 0, 1"),
        ("named tuple", {"output": "logit"}, "is a Named without the entry 'logit'; .*'logits', 'hidden'"),
        ("dataclass", {"output": 0}, "is a Fields without the entry 0; .*'logits', 'hidden', 'note'"),
        ("tuple", {"output": lambda out: 2 * out[0]}, "a Tensor computed from an entry; .*compute in the loss"),
        ("tuple", {"output": 0, "batch_dims": 3}, r"must be .* with 3 batch axes, got shape \(5, 2\).*; batch_dims="),
    ],
)
def test_an_entry_that_can_carry_no_error_is_refused(make: str, options: dict[str, Any], message: str) -> None:
    model = Structured(MAKERS[make][0])
    with pytest.raises(OutputError, match=message):
        fa.DFA(model, points=("gate",), **options)(floats(5, 4))
    (problem,) = fa.validate(model, ("gate",), floats(5, 4), **options).problems
    assert problem.name == "output"


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        ((), ArgumentError, r"output=\(\) names no entry"),
        ((0, 0), ArgumentError, r"output=\(0, 0\) names one of them twice"),
        ((0, 2), OutputError, "is a tuple without the entry 2"),
        (([[1]], 0), ArgumentError, r"output must be a key, an index, .* got \[\[1\]\]"),
        ((([1],), 0), OutputError, r"is a tuple without the entry \(\[1\],\)"),  # a tuple that has no hash
    ],
)
def test_several_entries_that_cannot_be(output: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        fa.DFA(Structured(MAKERS["tuple"][0]), points=("gate",), output=output)(floats(5, 4))


@pytest.mark.parametrize("rule", DIRECT)
def test_several_entries_are_one_error_side_by_side(rule: str) -> None:
    """The slow reference agrees, whether the loss uses both entries or one."""
    torch.manual_seed(1)  # DRTP sends nothing to a sample whose outputs are both positive; here none are
    net = DIRECT[rule](Structured(MAKERS["tuple"][0]), points=("gate",), output=(1, 0))
    x, y = floats(5, 4), labels(5)
    assert fa.validate(net.model, ("gate",), x, output=(1, 0))
    net(x)
    assert net.feedback_matrices["gate"].shape == (6, 5)
    assert net.blocks[-1].parts == (3, 2)
    both = fa.check_rule(net, lambda out, y: cross_entropy(out[1], y) + out[0].square().sum(), x, y)
    assert both.worst < ROUNDING
    assert fa.check_rule(net, lambda out, _: out[0].square().sum(), x, y).worst < ROUNDING
    measured = fa.gradient_alignment(net, lambda out, _: out[0].square().sum(), x, y)
    # DRTP sends nothing where no error is below zero.
    sent_nothing = int((net(x)[0] >= 0).all(1).sum()) if rule == "drtp" else 0
    assert sum(measured.skipped.values()) == sent_nothing


def test_entries_with_other_batch_axes_are_refused() -> None:
    model = Structured(lambda logits, h: (logits, h[:3]))
    with pytest.raises(FeedbackShapeError, match=r"have the batch axes .*\(5,\).*, expected the same"):
        fa.DFA(model, points=("gate",), output=(0, 1))(floats(5, 4))


def test_an_entry_of_another_width_than_before_is_refused() -> None:
    model = Structured(lambda logits, h: (logits, h))
    net = fa.DFA(model, points=("gate",), output=(0, 1), example_input=floats(5, 4))
    model.make = lambda logits, h: (logits[:, :2], h)
    with pytest.raises(FeedbackShapeError, match=r"have \(3, 2\) numbers .* this pass gives 2 in place of 3"):
        net(floats(5, 4))


@pytest.mark.parametrize("rule", ["dfa", "drtp", "conditioned", "dkp"])
def test_a_loss_of_what_the_model_has_made_of_the_entry_alone_is_refused(rule: str) -> None:
    """No error would come to the hidden layers, and their gradients would be missing without a word."""
    x, y = floats(5, 4), labels(5)
    model = Structured(lambda logits, h: {"logits": logits, "probabilities": logits.softmax(-1), "hidden": h})
    net = DIRECT[rule](model, points=("gate",), output="logits", example_input=x)
    output = net(x)
    with pytest.raises(OutputError, match=r"output='logits' is not passed by this loss.*made of the entry"):
        functional.nll_loss(output["probabilities"].log(), y).backward()
    # Together with the entry itself it is a head of its own, as before; so is what is made of the hidden layer.
    output = net(x)
    (cross_entropy(output["logits"], y) + output["probabilities"].square().sum() + output["hidden"].sum()).backward()
    assert model.get_parameter("hidden.weight").grad is not None
    with net.backprop():
        functional.nll_loss(net(x)["probabilities"].log(), y).backward()
