"""The nets of a diagnosis: copies of the user's model, each in the rule that trains the copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from feedalign.alignment import output_errors
from feedalign.anatomy import undisturbed
from feedalign.diagnosis.batches import kind_of, seeded, told
from feedalign.errors import ArgumentError, PointsError
from feedalign.feedback import Feedback
from feedalign.rules import DFA, RULES, ConditionedDFA, DirectRule, SequentialRule

# Matrices of outputs by outputs are made in double precision: a few of 1 GB each are the most that is sensible.
MOST_OUTPUTS = 10_000


def copies_in_rules(
    net: nn.Module,
    *,
    points: str | Iterable[str],
    feedback: Feedback | None,
    seed: int,
    compare: bool,
    options: dict[str, Any],
) -> dict[str, DirectRule]:
    """Return copies of the model by the name of their rule, in training mode.

    A bare model is wrapped in DFA, and with `compare` a second copy in ConditionedDFA with the same feedback. A wrapped
    one is copied with its own feedback.

    Raises:
        ArgumentError: the model cannot be diagnosed, or arguments do not fit; says why.
    """
    if not isinstance(net, nn.Module):
        raise ArgumentError(f"net is {kind_of(net)}, expected a torch.nn.Module, wrapped in a rule or bare")
    if isinstance(net, SequentialRule):
        raise ArgumentError(
            f"the model is wrapped in {type(net).__name__}, which sends no error straight to a layer; give the bare "
            "model, or one in a direct rule such as DFA"
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ArgumentError("no parameter of the model requires a gradient, so nothing can be trained; unfreeze some")
    with told("copying the model", "diagnose trains copies, so copy.deepcopy(model) must work"):
        first = copy.deepcopy(net)
    if isinstance(first, DirectRule):
        if points != "auto" or feedback is not None or any(value is not None for value in options.values()):
            raise ArgumentError(
                "the model is wrapped already; points, feedback, output and batch_dims are for a bare model"
            )
        if compare:
            raise ArgumentError(
                f"the model is wrapped in {type(net).__name__} already; give the bare model to compare DFA with "
                "ConditionedDFA"
            )
        return {name_of(first): first.train()}
    wrapped: Any = {"points": points, "feedback": feedback, "seed": seed, **options}
    with told("wrapping the model", "see feedalign.validate(model, points)"):
        try:
            nets: dict[str, DirectRule] = {"dfa": DFA(first, **wrapped)}
        except PointsError as error:
            raise ArgumentError(f"{error}; name the points (points=, on the command line --points)") from error
        if compare:
            nets["conditioned-dfa"] = ConditionedDFA(copy.deepcopy(net), **wrapped)
    return {name: each.train() for name, each in nets.items()}


def name_of(net: DirectRule) -> str:
    """Return the registry's name of a net's rule; the name of its class where the registry has none."""
    return next((name for name, rule in RULES.items() if net.rule is rule), type(net).__name__)


def check_on_probe(
    nets: Iterable[DirectRule], loss_fn: Callable[[Any, Any], Tensor], probe: tuple[Any, Any], seed: int
) -> None:
    """Run every net on the probe once, so that what does not fit together is told before the work.

    Raises:
        ArgumentError: model, loss function and batches do not fit together; says how.
    """
    for net in nets:
        with (
            told("model or loss function, on the first samples,", "loss_fn(net(x), y) must work on batches (x, y)"),
            seeded(seed),
            undisturbed(net),
        ):
            errors = output_errors(net, loss_fn, *probe)
        if errors.shape[-1] > MOST_OUTPUTS:
            raise ArgumentError(
                f"the model has {errors.shape[-1]} outputs, and a diagnosis makes matrices of outputs by outputs; at "
                f"most {MOST_OUTPUTS} are possible"
            )
