"""Random models under every rule: each gradient is that of two slow references, or an error names what is wrong.

The second reference stands in `tests/cases/tiny_reference.py` and shares nothing with the package.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cases import tiny_reference
from tests.cases.random_models import Random, Spec, batch_of, loss_of, model_of, specs
from tests.cases.small import left_by_backward
from torch import Tensor

import feedalign as fa
from feedalign import feedback
from feedalign.errors import ArgumentError, FeedalignError, PointsError

# In float64, relative to the largest gradient of the model. Norms of nearly equal features enlarge rounding.
TOLERANCE = 1e-8


def random_models(number: int) -> settings:
    """Return the settings for so many models: the same models in every run, so that a failure can be repeated."""
    return settings(
        max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def entries(e: Tensor) -> int:
    return max(1, int((e != 0).any(-1).sum()))


Message = Callable[[Any], Callable[[Tensor], Tensor] | None]


@dataclass(frozen=True)
class Rule:
    """A rule, and what the tiny reference must know of it.

    Attributes:
        kind: the class.
        message: of a direct rule, from the net to what is sent for an error; nothing is sent for None.
        instead: of a sequential rule, what replaces a weight.
        options: of the class.
    """

    kind: Any
    message: Message | None = None
    instead: Callable[[Tensor, Tensor], Tensor] | None = None
    options: dict[str, Any] = field(default_factory=dict)


def the_error(_net: Any) -> Callable[[Tensor], Tensor]:
    return lambda e: e


def conditioned(net: Any) -> Callable[[Tensor], Tensor]:
    P = net.conditioner.clone()
    return lambda e: e @ P


RECIPES: dict[str, feedback.Feedback] = {
    "uniform": feedback.Uniform(),
    "rademacher": feedback.Rademacher(0.5),
    "orthogonal": feedback.Orthogonal(),
    "sparse": feedback.Sparse(0.5),
    "low rank": feedback.LowRank(2),
    "shared": feedback.Shared(),
    "channelwise": feedback.Channelwise(),
    "aligned": feedback.Aligned(),
    "conditioned": feedback.Conditioned(torch.eye(3).numpy()),
    "smooth": feedback.Smooth(),
    "toeplitz": feedback.Toeplitz(),
    "from mask": feedback.FromMask(),
    "from weights": feedback.FromWeights(),
}
# These need an image, or a chain of convolutions, at every point.
NEED_IMAGES = ("channelwise", "smooth", "toeplitz", "from mask", "from weights")

RULES: dict[str, Rule] = {
    "dfa": Rule(fa.DFA, the_error),
    "dfa of signs, mean": Rule(fa.DFA, lambda _: lambda e: e.sign() / entries(e), options={"error": "sign"}),
    "dfa of signs, sum": Rule(fa.DFA, lambda _: torch.sign, options={"error": "sign", "reduction": "sum"}),
    "drtp": Rule(fa.DRTP, lambda _: lambda e: -(e < 0).to(e) / entries(e)),
    "conditioned": Rule(fa.ConditionedDFA, conditioned),
    "direct kolen pollack": Rule(fa.DirectKolenPollack, the_error),
    "direct kolen pollack, uncentred": Rule(fa.DirectKolenPollack, the_error, options={"centred": False}),
    "readout only": Rule(fa.ReadoutOnly, lambda _: None),
    "backprop": Rule(fa.Backprop),
    "frozen": Rule(fa.Frozen),
    "fa": Rule(fa.FA, instead=lambda B, _: B),
    "kolen pollack": Rule(fa.KolenPollack, instead=lambda B, _: B),
    "sign symmetry": Rule(fa.SignSymmetry, instead=lambda B, W: W.sign() * B),
    "sign symmetry, batchwise": Rule(
        fa.SignSymmetry, instead=lambda B, W: W.sign() * B, options={"magnitude": "batchwise"}
    ),
    "sign symmetry, fixed": Rule(fa.SignSymmetry, instead=lambda B, W: W.sign() * B, options={"magnitude": "fixed"}),
}
# Matrices of other recipes under the two rules that read them as they are.
FOR_IMAGES = [f"dfa, {name}" for name in NEED_IMAGES]
WITH_RECIPES = [f"dfa, {name}" for name in RECIPES if name not in NEED_IMAGES] + ["fa, orthogonal", "fa, aligned"]


def rule_of(name: str) -> Rule:
    """Return a rule by its name, with a recipe by the recipe's name behind a comma."""
    if name in RULES:
        return RULES[name]
    rule, recipe = name.split(", ")
    return replace(RULES[rule], options={"feedback": RECIPES[recipe]})


def wrapped(name: str, spec: Spec, **options: Any) -> Any:
    rule = rule_of(name)
    x, _ = batch_of(spec)
    example = x if isinstance(x, (Tensor, tuple)) else tuple(x.values())
    points = "auto" if rule.instead is not None else spec.names
    return rule.kind(model_of(spec), points, example_input=example, output=spec.entry, **rule.options, **options)


def refused(name: str, spec: Spec) -> type[FeedalignError] | None:
    """Return the error that this rule must raise for this model, if any."""
    if name == "frozen" and len(spec.points) < 2:
        return ArgumentError  # there is nothing between the first block and the readout
    return None


def called(net: Any, x: Any) -> Any:
    return net(**x) if isinstance(x, dict) else net(*x) if isinstance(x, tuple) else net(x)


def referred(
    name: str, net: Any, before: dict[str, Tensor], message: Any, spec: Spec, model: Random
) -> dict[str, Tensor]:
    """Return what the tiny reference has for the gradients."""
    x, y = batch_of(spec)

    def run(of: Any) -> tuple[Tensor, Tensor]:
        torch.manual_seed(spec.seed)
        output = called(of, x)
        return loss_of(spec)(output, y), output if spec.entry is None else output[spec.entry]

    rule = rule_of(name)
    if rule.instead is not None:
        return tiny_reference.sequential(model, run, before, rule.instead)
    if rule.message is not None:
        return tiny_reference.direct(model, run, before, message)
    if name == "frozen":
        for i in range(spec.points[0] + 1, spec.points[-1] + 1):
            model.bodies[model.uses[i]].requires_grad_(False)
    return tiny_reference.true(model, run)


def checked(net: Any, spec: Spec) -> tuple[fa.verify.RuleCheck | None, str]:
    """Return what `check_rule` finds, or the words in which the rule refuses the model."""
    try:
        return fa.check_rule(net, loss_of(spec), *batch_of(spec)), ""
    except PointsError as refusal:
        return None, str(refusal)


def check(name: str, spec: Spec, **options: Any) -> None:
    """Hold that the rule's gradients on a random model are those of both references."""
    if (error := refused(name, spec)) is not None:
        with pytest.raises(error, match="there is no block"):
            wrapped(name, spec, **options)
        return
    net = wrapped(name, spec, **options)
    x, y = batch_of(spec)
    with torch.random.fork_rng([]):
        torch.manual_seed(spec.seed)
        report, refusal = checked(net, spec)
        if report is None:
            # A dropped part may leave a point with nothing of its block below it that learns.
            assert "gives an activation without a gradient" in refusal
            assert any(part.dropped for part in spec.parts)
            return
        assert report.worst < TOLERANCE, report
        model = copy.deepcopy(net.model)
        matrices = {point: F.clone() for point, F in net.feedback_matrices.items()}
        message = rule_of(name).message
        sent = None if message is None else message(net)
        torch.manual_seed(spec.seed)
        loss_of(spec)(called(net, x), y).backward()
        found = left_by_backward(net)
        if name == "sign symmetry, batchwise":  # these magnitudes are drawn for the batch
            matrices = net.feedback_matrices
        expected = referred(name, net, matrices, sent, spec, model)
    assert found.keys() == expected.keys()
    size = max(float(gradient.abs().max()) for gradient in expected.values())
    for parameter, gradient in expected.items():
        assert float((found[parameter] - gradient).abs().max()) <= TOLERANCE * size, parameter


@pytest.mark.parametrize("name", RULES)
@random_models(96)
@given(spec=specs())
def test_every_gradient_is_that_of_two_references(name: str, spec: Spec) -> None:
    check(name, spec)


@random_models(192)
@given(name=st.sampled_from(WITH_RECIPES), spec=specs())
def test_whatever_recipe_draws_the_matrices(name: str, spec: Spec) -> None:
    check(name, spec)


@random_models(192)
@given(name=st.sampled_from(FOR_IMAGES), spec=specs())
def test_feedback_for_images_fits_or_is_refused(name: str, spec: Spec) -> None:
    """A recipe for images says of every other model what it needs."""
    refusal = ""
    try:
        wrapped(name, spec)
    except FeedalignError as error:
        refusal = str(error)
    if refusal:
        assert any(word in refusal for word in ("marks.", "convolution", "image"))
        return
    check(name, spec)


@random_models(192)
@given(
    name=st.sampled_from(["dfa", "dfa of signs, mean", "drtp", "conditioned", "direct kolen pollack"]),
    spec=specs().filter(lambda spec: spec.returns == "tensor"),
)
def test_the_same_with_a_second_run_in_the_backward_pass(name: str, spec: Spec) -> None:
    check(name, spec, recompute=True)
