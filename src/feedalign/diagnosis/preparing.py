"""What a diagnosis works on: copies of the user's model, each in a rule, and the task on which they are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feedalign.alignment import output_errors
from feedalign.anatomy import copied, undisturbed
from feedalign.checks import Array
from feedalign.diagnosis.batches import Batches, Source
from feedalign.diagnosis.users_code import kind_of, output_on, seeded, told
from feedalign.errors import ArgumentError, PointsError
from feedalign.rules import DFA, RULES, ConditionedDFA, DirectRule, SequentialRule

Loss = Callable[[Any, Any], Tensor]

# Matrices of outputs by outputs are made in double precision: a few of 1 GB each are the most that is sensible.
MOST_OUTPUTS = 10_000


@dataclass(frozen=True, eq=False)
class Task:
    """What every net of a diagnosis is trained on."""

    loss_fn: Loss  # scalar loss of (output, y)
    batches: Batches
    probe: tuple[Any, Any]  # the batch on which alignment is measured
    probe_errors: Array  # of the untrained net on the probe, [samples, C]
    seed: int  # of the random numbers during training
    steps: int
    lr: float

    def loss(self, net: nn.Module, x: Any, y: Any) -> Tensor:
        """Return the loss of a net on a batch."""
        return self.loss_fn(output_on(net, x), y)


def task_for(net: DirectRule, loss_fn: Loss, source: Source, *, probe: int, seed: int, steps: int, lr: float) -> Task:
    """Read the probe and run the net on the probe once, so that what does not fit together is told before the work."""
    if not callable(loss_fn):
        raise ArgumentError(
            f"loss_fn={loss_fn!r} is no function of (output, y); give torch.nn.functional.cross_entropy"
        )
    largest = min(torch.finfo(weight.dtype).max for weight in net.parameters() if weight.requires_grad)
    if lr > largest:
        raise ArgumentError(f"lr={lr:g} is beyond {largest:.3g}, the largest number that the model's weights can hold")
    batches = Batches(source)
    with seeded(seed):
        batch = batches.first(probe)
        with (
            told("model or loss function, on the first samples,", "loss_fn(net(x), y) must work on batches (x, y)"),
            undisturbed(net, net.model),
        ):
            errors = output_errors(net, loss_fn, *batch).flatten(0, -2).double().cpu().numpy()
    if errors.shape[1] > MOST_OUTPUTS:
        raise ArgumentError(
            f"the model has {errors.shape[1]} outputs, and a diagnosis makes matrices of outputs by outputs; at most "
            f"{MOST_OUTPUTS} are possible"
        )
    return Task(loss_fn, batches, batch, errors, seed, steps, lr)


def copies_in_rules(net: nn.Module, *, seed: int, compare: bool, of_bare: dict[str, Any]) -> dict[str, DirectRule]:
    """Return copies of the model by the name of their rule, in training mode.

    A wrapped model is copied with its own feedback. A bare model is wrapped in DFA, and with `compare` a second copy in
    ConditionedDFA with the same feedback. `of_bare` has points, feedback, output and batch_dims of the rule of a bare
    model. ArgumentError, which says why, if the model cannot be diagnosed, or arguments do not fit.
    """
    if not isinstance(net, nn.Module):
        raise ArgumentError(f"net is {kind_of(net)}, expected a torch.nn.Module, wrapped in a rule or bare")
    if isinstance(net, SequentialRule):
        raise ArgumentError(
            f"the model is wrapped in {type(net).__name__}, which sends no error straight to a layer; give the bare "
            "model, or one in a direct rule such as DFA"
        )
    if any(parameter.is_meta for parameter in net.parameters()):
        raise ArgumentError(
            "the model is on the meta device, so its weights are no numbers; call to_empty, and set the weights"
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ArgumentError("no parameter of the model requires a gradient, so nothing can be trained; unfreeze some")
    wrapped = isinstance(net, DirectRule)
    if wrapped and of_bare != {"points": "auto", "feedback": None, "output": None, "batch_dims": None}:
        raise ArgumentError(
            "the model is wrapped already; points, feedback, output and batch_dims are for a bare model"
        )
    if wrapped and compare:
        raise ArgumentError(
            f"the model is wrapped in {type(net).__name__} already; give the bare model to compare DFA with "
            "ConditionedDFA"
        )
    with told("copying the model", "diagnose trains copies, so copy.deepcopy(model) must work"):
        copies = [copied(net) for _ in range(1 + compare)]
    with told("wrapping the model", "see feedalign.validate(model, points)"):
        try:
            rules = [DFA, ConditionedDFA]
            nets = [
                each if isinstance(each, DirectRule) else rule(each, seed=seed, **of_bare)
                for each, rule in zip(copies, rules, strict=False)
            ]
        except PointsError as error:
            raise ArgumentError(f"{error}; name the points (points=, on the command line --points)") from error
    return {_name_of(each): each.train() for each in nets}


def _name_of(net: DirectRule) -> str:
    """Return the registry's name of a net's rule; the name of its class where the registry has none."""
    return next((name for name, rule in RULES.items() if net.rule is rule), type(net).__name__)
