"""Feedback of few stored numbers: the same gradients, learning and measures as F with all its entries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.cases.compact import CASES, CLASSES, NAMES, case, with_all_entries, wrapped
from tests.cases.small import EXACT, assert_same
from torch import Tensor
from torch.nn import functional

import feedalign as fa
from feedalign import feedback

RULES: list[Any] = [
    (fa.DFA, {}),
    (fa.DFA, {"error": "sign"}),
    (fa.DRTP, {}),
    (fa.ConditionedDFA, {"every": 1}),
    (fa.DFA, {"recompute": True}),
    (fa.DirectKolenPollack, {}),
    (fa.DirectKolenPollack, {"recompute": True, "centred": False}),
]


@pytest.mark.parametrize(("rule", "options"), RULES)
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_gradients_are_those_of_f_with_all_its_entries(kind: str, recipe: Any, rule: Any, options: Any) -> None:
    net, _, step = wrapped(rule, kind, recipe, **options)
    full = with_all_entries(net, rule, kind, **options)
    for _ in range(1 if net.learns_feedback else 2):  # the second step is behind a conditioner
        assert_same(step(net), step(full), **EXACT)


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_a_rule_draws_what_the_recipe_draws(kind: str, recipe: Any) -> None:
    """`InFull` goes by way of `draw_at`, and so does every recipe over another one."""
    net, *_ = wrapped(fa.DFA, kind, recipe)
    full, *_ = wrapped(fa.DFA, kind, feedback.InFull(recipe))
    single = {"rtol": 1e-5, "atol": 1e-6}  # recipes draw and multiply in single precision
    assert_same(net.feedback_matrices, full.feedback_matrices, **single)
    assert all(form.is_full for form in full.feedback.forms.values())


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_learned_feedback_is_the_nearest_of_its_form_to_what_all_entries_would_learn(kind: str, recipe: Any) -> None:
    """In least squares over all points: the gap is at right angles to every change of a stored number."""
    net, _, step = wrapped(fa.DirectKolenPollack, kind, recipe, lr=2.0)
    full = with_all_entries(net, fa.DirectKolenPollack, kind, lr=2.0)
    before = {name: F.clone() for name, F in net.feedback_matrices.items()}
    step(net), step(full)
    moved = {name: F.clone() for name, F in net.feedback_matrices.items()}
    assert any(not torch.allclose(moved[name], before[name], rtol=0.1) for name in moved)
    for key, buffer in net.feedback.named_buffers():
        if key == "/sketch":
            continue
        for i in {0, buffer.numel() // 2, buffer.numel() - 1}:
            buffer.view(-1)[i] += 1
            changes = {name: F - moved[name] for name, F in net.feedback_matrices.items()}
            buffer.view(-1)[i] -= 1
            products = [((full.feedback_matrices[name] - moved[name]) * changes[name]).sum() for name in moved]
            assert float(sum(products)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack, fa.ConditionedDFA, fa.DRTP])
@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_the_rule_is_that_of_the_reference(kind: str, recipe: Any, rule: Any) -> None:
    net, inputs, _ = wrapped(rule, kind, recipe)
    entries = net(*inputs).flatten(0, -2).shape[0]

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, -2), y)

    assert fa.check_rule(net, loss, inputs, torch.arange(entries) % CLASSES).worst < 1e-12


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=NAMES)
def test_measures_see_the_same_as_with_all_entries(kind: str, recipe: Any) -> None:
    net, inputs, _ = wrapped(fa.DFA, kind, recipe)
    full = with_all_entries(net, fa.DFA, kind)
    entries = net(*inputs).flatten(0, -2).shape[0]
    y = torch.arange(entries) % CLASSES

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, -2), y)

    found, expected = (fa.gradient_alignment(each, loss, inputs, y) for each in (net, full))
    assert found.layers == pytest.approx(expected.layers, abs=1e-12)
    found_w, expected_w = fa.weight_alignment(net), fa.weight_alignment(full)
    assert found_w.layers == pytest.approx(expected_w.layers, abs=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler's own
@pytest.mark.parametrize(("kind", "recipe"), [CASES[0], CASES[5], CASES[9], CASES[14]])
@pytest.mark.parametrize("rule", [fa.DFA, fa.DirectKolenPollack])
def test_compiled_it_is_the_same(kind: str, recipe: Any, rule: Any) -> None:
    net, _, step = wrapped(rule, kind, recipe)
    expected = step(net)
    other, *_ = wrapped(rule, kind, recipe)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    assert_same(step(compiled), expected, **EXACT)
    torch.compiler.reset()


def test_under_autocast_signals_have_the_precision_of_the_matrix() -> None:
    model, points, inputs = case("pooled")
    net = fa.DFA(model.float(), points, feedback.Sketched(3, feedback.Tokenwise()), example_input=inputs[0].float())
    with torch.autocast("cpu", torch.bfloat16):
        loss = functional.cross_entropy(net(inputs[0].float()), torch.arange(5))
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())
