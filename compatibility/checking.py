"""One model in one rule: every gradient against the slow reference, or the words in which the rule refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import feedalign as fa
from compatibility.apart import apart
from compatibility.case import Case

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {
    "DFA": fa.DFA,
    "FA": fa.FA,
    "DirectKolenPollack": fa.DirectKolenPollack,
    "KolenPollack": fa.KolenPollack,
}
SEQUENTIAL = (fa.FA, fa.KolenPollack)
# Largest error of a gradient beside the gradient's largest entry. Many models of transformers normalise and rotate in
# single precision whatever their own precision is, so the rounding of float32, some 1e-7, is left.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What came of a model in a rule.

    Attributes:
        kind: "equal" if all gradients are those of the reference, "refused" if a FeedalignError says why not, "failed"
            for everything else, "not tried" without the package.
        words: the reason of a refusal or a failure.
        worst: the largest error of a gradient, or of a matrix that was learned.
        seconds: that it took.
    """

    kind: Literal["equal", "refused", "failed", "not tried"]
    words: str = ""
    worst: float = 0.0
    seconds: float = 0.0


def outcome(case: Case, rule: str) -> Outcome:
    """Wrap a model in a rule, check every gradient in float64, and train one step in float32."""
    try:
        found: Outcome = apart(_outcome, case, rule)
    except RuntimeError as error:
        return Outcome("failed", str(error))
    return found


def _outcome(case: Case, rule: str) -> Outcome:
    torch.set_num_threads(1)  # the copy of a process has none of the threads of the process
    start = time.monotonic()
    try:
        worst, words = _tried(case, RULES[rule])
    except fa.FeedalignError as error:
        return Outcome("refused", str(error), 0.0, time.monotonic() - start)
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}", 0.0, time.monotonic() - start)
    return Outcome("failed" if words else "equal", words, worst, time.monotonic() - start)


def _tried(case: Case, rule: Rule) -> tuple[float, str]:
    """Return the worst error, and in words what is wrong."""
    torch.manual_seed(0)
    model, x = case.make(), case.inputs()
    with torch.no_grad():
        shape = case.error_at(called(model, x)).shape
    target = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def loss_fn(output: Any, y: Tensor) -> Tensor:
        return (case.error_at(output) - y).square().mean()

    net = wrapped(case, rule, model)
    check = fa.check_rule(net, loss_fn, x, target)
    wrong = [f"{name} {error:.1e}" for name, error in check.errors.items() if not error < TOLERANCE]
    if wrong:
        return check.worst, f"gradients differ from the reference: {', '.join(wrong[:5])}"
    return check.worst, step(net, lambda: loss_fn(called(net, x), target))


def wrapped(case: Case, rule: Rule, model: nn.Module) -> Any:
    """Return the model in a rule; a sequential rule finds its layers itself."""
    if rule in SEQUENTIAL:
        return rule(model, output=case.output)
    return rule(model, case.points(model), output=case.output, batch_dims=case.batch_dims)


def called(model: nn.Module, x: Any) -> Any:
    """Return the output for inputs by keyword, or for one Tensor."""
    return model(**x) if isinstance(x, dict) else model(x)


def step(net: nn.Module, loss_of: Callable[[], Tensor]) -> str:
    """Train one step in the model's own precision, and return in words what is wrong."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    loss_of().backward()
    trained = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.requires_grad}
    endless = [name for name, grad in trained.items() if grad is not None and not grad.isfinite().all()]
    optimizer.step()
    if endless:
        return f"gradients are not finite in a step of training: {', '.join(endless[:5])}"
    learning = sum(grad is not None and bool(grad.any()) for grad in trained.values())
    if 3 * learning < len(trained):
        return f"only {learning} of {len(trained)} parameters learn, so the comparison shows little"
    return ""
