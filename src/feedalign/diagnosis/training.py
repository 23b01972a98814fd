"""One net of a diagnosis, trained a little by plain gradient descent and measured along the way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from feedalign.alignment import AlignmentMonitor, Measurement
from feedalign.anatomy import undisturbed
from feedalign.checks import Array
from feedalign.diagnosis.expectation import by_output
from feedalign.diagnosis.preparing import Task
from feedalign.diagnosis.users_code import seeded, told
from feedalign.errors import DivergenceError, OutputError
from feedalign.rules import ConditionedDFA, DirectRule

# A net whose loss on the probe has grown by this factor has diverged, though the numbers are still finite: bounded
# activations such as tanh keep them so at any learning rate.
GROWN = 10.0
# The loss on the probe is taken this often along training: enough to compare learning times to about a percent.
LOSSES = 100
# What is measured of every layer's weights after the last step.
OF_WEIGHTS = ("weight_alignment", "condition_number", "residual")


@dataclass(frozen=True, eq=False)
class Trained:
    """What was measured of one net. Layers are the points from the bottom, and the readout.

    What was not measured, because numbers were no longer finite, is NaN.

    Attributes:
        conditioned: whether the rule is ConditionedDFA.
        steps: after which gradient alignment was measured.
        gradient_alignment: mean over the probe's samples, [steps, points].
        by_output: gradient alignment at the end, mean over the samples whose error was largest at an output before
            training, [points, C]; NaN without any.
        norm_ratio: length of what the rule sends over that of the true gradient, at the end, [layers].
        weight_alignment: at the end, [layers].
        condition_number: of the alignment matrix Â, at the end, [layers].
        residual: share of the weights that Â does not describe, at the end, [layers].
        undefined: why a layer has no weight alignment or no Â; "" where it has both, [layers].
        loss_steps: after which the loss was measured.
        losses: on the probe, in evaluation mode, [loss_steps].
        diverged_at: after how many steps the net had diverged: loss or derivatives were not finite, or the loss had
            grown tenfold and stayed there. None if the net did not diverge.
    """

    conditioned: bool
    steps: tuple[int, ...]
    gradient_alignment: Array
    by_output: Array
    norm_ratio: Array
    weight_alignment: Array
    condition_number: Array
    residual: Array
    undefined: tuple[str, ...]
    loss_steps: tuple[int, ...]
    losses: Array
    diverged_at: int | None


def train(net: DirectRule, task: Task, progress: Callable[[int], None]) -> Trained:
    """Train a net in place, and measure its alignment at log-spaced steps.

    Raises:
        ArgumentError: the user's code raised.
    """
    optimizer = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=task.lr)
    losses = dict.fromkeys([*range(0, task.steps, max(1, task.steps // LOSSES)), task.steps], math.nan)
    records: dict[int, Measurement | None] = dict.fromkeys(_log_spaced(task.steps))
    done, broken = 0, None
    try:
        with seeded(task.seed):
            for done, batch in enumerate(itertools.chain(task.batches.stream(task.steps), [None])):
                # The length of every weight tensor, in the precision of the model.
                if not all(weight.square().sum().isfinite() for weight in net.parameters()):
                    raise DivergenceError(f"weights are not finite after {done} steps", time=done, state=None)
                if done in losses:
                    losses[done] = _probe_loss(net, task)
                if done in records:
                    # Singular values take long with many outputs, and only those at the end are told.
                    at_the_end = done == task.steps
                    monitor = AlignmentMonitor(net, task.loss_fn, *task.probe, conditioning=at_the_end)
                    records[done] = monitor.measure(done)
                if batch is not None:
                    _step(net, task, optimizer, batch, done)
                    progress(done + 1)
    except (DivergenceError, OutputError):  # OutputError: a derivative that is not finite
        broken = done
    return _summary(net, task, records, losses, diverged_at(losses, broken))


def _log_spaced(steps: int) -> list[int]:
    """Return 0 to 10, then ten whole numbers a decade up to `steps`, and `steps` itself."""
    decades = (math.ceil(10 ** (k / 10)) for k in range(11, 10 * len(str(steps))))
    return sorted({step for step in (*range(11), *decades) if step < steps} | {steps})


def _probe_loss(net: DirectRule, task: Task) -> float:
    with (
        told("model or loss function, on the probe,", "loss_fn must take any finite output"),
        undisturbed(net, net.model),
        torch.no_grad(),
    ):
        return float(task.loss(net, *task.probe))


def _step(net: DirectRule, task: Task, optimizer: torch.optim.Optimizer, batch: tuple[Any, Any], done: int) -> None:
    """Take one step; DivergenceError if the loss is not finite."""
    with told(f"model or loss function, at training step {done},", "every batch must be like the first"):
        optimizer.zero_grad()
        loss = task.loss(net, *batch)
        if not loss.isfinite():
            raise DivergenceError(f"the loss is not finite after {done} steps", time=done, state=None)
        loss.backward()
    optimizer.step()


def diverged_at(losses: dict[int, float], broken: int | None) -> int | None:
    """Return the step from which on a net had diverged, given losses by step and the step at which numbers broke."""
    first = next(iter(losses.values()))
    limit = first + (GROWN - 1) * abs(first)
    begin = broken
    for step, loss in reversed(losses.items()):
        if loss <= limit:  # NaN is not
            break
        begin = step if begin is None else min(step, begin)
    return begin


def layers_of(net: DirectRule) -> dict[str, str]:
    """Return the label of each layer's weights by layer: the points from the bottom, and "readout"."""
    # A point that runs several times has a block for each run; they hold the same modules.
    blocks = {block.point or "readout": block for block in net.blocks}
    return {layer: block.label for layer, block in blocks.items()}


def _summary(
    net: DirectRule,
    task: Task,
    records: dict[int, Measurement | None],
    losses: dict[int, float],
    broken: int | None,
) -> Trained:
    layers = layers_of(net)
    *_, last = records.values()
    samples = np.full((len(net.points), len(task.probe_errors)), np.nan)
    undefined: dict[str, str] = {}
    if last is not None and last.gradient is not None and last.conditioning is not None:
        samples = np.stack([cosine.flatten().numpy() for cosine in last.gradient.per_sample.values()])
        undefined = {**last.conditioning.undefined, **last.weight.undefined}

    def numbers(record: Measurement | None, quantity: str, names: Iterable[str]) -> list[float]:
        known = {} if record is None else record.scalars
        return [known.get(f"{quantity}/{name}", math.nan) for name in names]

    return Trained(
        conditioned=isinstance(net, ConditionedDFA),
        steps=tuple(records),
        gradient_alignment=np.array([numbers(each, "gradient_alignment", net.points) for each in records.values()]),
        by_output=by_output(samples, task.probe_errors),
        norm_ratio=np.array(numbers(last, "norm_ratio", layers)),
        **{name: np.array(numbers(last, name, layers.values())) for name in OF_WEIGHTS},
        undefined=tuple(undefined.get(label, "") for label in layers.values()),
        loss_steps=tuple(losses),
        losses=np.array(list(losses.values())),
        diverged_at=broken,
    )
