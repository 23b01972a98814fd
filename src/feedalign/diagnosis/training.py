"""One net of a diagnosis, trained a little by plain gradient descent and measured along the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feedalign.alignment import AlignmentMonitor, Measurement, output_errors
from feedalign.anatomy import undisturbed
from feedalign.diagnosis.batches import Batches, arguments, seeded, told
from feedalign.diagnosis.expectation import Array, by_output
from feedalign.errors import ArgumentError, OutputError
from feedalign.rules import ConditionedDFA, DirectRule

# A net whose loss on the probe has grown by this factor has diverged, though the numbers are still finite: bounded
# activations such as tanh keep them so at any learning rate.
GROWN = 10.0
# The loss on the probe is taken this often along training: enough to compare learning times to about a percent.
LOSSES = 100
# What is measured of every layer after the last step.
OF_LAYERS = ("norm_ratio", "weight_alignment", "condition_number", "residual")

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Trained:
    """What was measured of one net. Layers are the points from the bottom, and the readout.

    Attributes:
        conditioned: whether the rule is ConditionedDFA.
        probe: how many errors were measured on.
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
    probe: int
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


def train(
    net: DirectRule,
    loss_fn: Loss,
    batches: Batches,
    probe: tuple[Any, Any],
    *,
    steps: int,
    lr: float,
    seed: int,
    progress: Callable[[int], None],
) -> Trained:
    """Train a net in place for some steps, and measure its alignment at log-spaced steps.

    Raises:
        ArgumentError: the user's code raised.
    """
    largest, outputs = _largest_errors(net, loss_fn, probe)
    optimizer = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=lr)
    monitor = AlignmentMonitor(net, loss_fn, *probe, every="log", conditioning=True)
    losses: dict[int, float] = {}
    broken: int | None = None
    every = max(1, steps // LOSSES)
    with seeded(seed):
        done = 0
        for x, y in batches.stream(steps):
            if done % every == 0:
                losses[done] = _probe_loss(net, loss_fn, probe)
            if not (_measured(monitor, done, due=False) and _step(net, loss_fn, optimizer, x, y, done)):
                broken = done
                break
            done += 1
            progress(done)
    if broken is None:
        losses[done] = _probe_loss(net, loss_fn, probe)
        broken = None if _measured(monitor, done, due=True) else done
    return _summary(net, monitor.records, losses, broken, largest, outputs)


def _measured(monitor: AlignmentMonitor, step: int, *, due: bool) -> bool:
    """Measure, if it is time or due anyway; return whether all weights and derivatives were finite."""
    if not _finite(monitor.net):
        return False
    try:
        monitor.measure(step) if due else monitor(step)
    except OutputError:  # a derivative that is not finite
        return False
    return True


def _step(net: DirectRule, loss_fn: Loss, optimizer: torch.optim.Optimizer, x: Any, y: Any, done: int) -> bool:
    """Take one step; return whether loss and weights were finite."""
    try:
        with told(f"model or loss function, at training step {done},", "every batch must be like the first"):
            optimizer.zero_grad()
            loss = loss_fn(net(*arguments(x)), y)
            if not loss.isfinite():
                return False
            loss.backward()
    except ArgumentError:
        if _finite(net):
            raise
        return False  # some loss functions refuse the output of a net that has diverged
    optimizer.step()
    return True


def _probe_loss(net: DirectRule, loss_fn: Loss, probe: tuple[Any, Any]) -> float:
    x, y = probe
    try:
        with (
            told("model or loss function, on the probe,", "loss_fn must take any finite output"),
            undisturbed(net),
            torch.no_grad(),
        ):
            return float(loss_fn(net(*arguments(x)), y))
    except ArgumentError:
        if _finite(net):
            raise
        return float("nan")


def _finite(net: nn.Module) -> bool:
    """Return whether the length of every weight tensor is finite, in the precision of the model."""
    return all(bool(weight.square().sum().isfinite()) for weight in net.parameters())


def _largest_errors(net: DirectRule, loss_fn: Loss, probe: tuple[Any, Any]) -> tuple[NDArray[np.int64], int]:
    """Return the output at which the error of each sample is largest, and the number of outputs."""
    with undisturbed(net):
        errors = output_errors(net, loss_fn, *probe)
    return errors.abs().argmax(-1).flatten().cpu().numpy(), errors.shape[-1]


def diverged_at(losses: dict[int, float], broken: int | None) -> int | None:
    """Return the step from which on a net had diverged, given losses by step and the step at which numbers broke."""
    first = next(iter(losses.values()))
    limit = first + (GROWN - 1) * abs(first)
    above = [not loss <= limit for loss in losses.values()]  # NaN counts
    if not above[-1]:
        return broken
    steps = list(losses)
    begin = len(above) - above[::-1].index(False) if False in above else 0
    return min([steps[begin], *([] if broken is None else [broken])])


def layers_of(net: DirectRule) -> dict[str, str]:
    """Return the label of each layer's weights by layer: the points from the bottom, and "readout"."""
    # A point that runs several times has a block for each run; they hold the same modules.
    blocks = {block.point or "readout": block for block in net.blocks}
    return {layer: ", ".join(block.weights) or block.point for layer, block in blocks.items()}


def _summary(
    net: DirectRule,
    records: list[Measurement],
    losses: dict[int, float],
    broken: int | None,
    largest: NDArray[np.int64],
    outputs: int,
) -> Trained:
    layers = layers_of(net)
    gradient = np.full((len(records), len(net.points)), np.nan)
    for values, record in zip(gradient, records, strict=True):
        values[:] = list(_gradient(record).layers.values())
    last = {name: np.full(len(layers), np.nan) for name in OF_LAYERS}
    of_outputs = np.full((len(net.points), outputs), np.nan)
    undefined = tuple("" for _ in layers)
    if broken is None:
        record = records[-1]
        samples = np.stack([cosine.flatten().numpy() for cosine in _gradient(record).per_sample.values()])
        of_outputs = by_output(samples, largest, outputs)
        undefined = tuple(_why_undefined(record, label) for label in layers.values())
        numbers = [_numbers(record, layer, label) for layer, label in layers.items()]
        last = {name: np.array([each.get(name, np.nan) for each in numbers]) for name in OF_LAYERS}
    return Trained(
        conditioned=isinstance(net, ConditionedDFA),
        probe=len(largest),
        steps=tuple(record.step for record in records),
        gradient_alignment=gradient,
        by_output=of_outputs,
        **last,
        undefined=undefined,
        loss_steps=tuple(losses),
        losses=np.array(list(losses.values())),
        diverged_at=diverged_at(losses, broken),
    )


def _numbers(record: Measurement, layer: str, label: str) -> dict[str, float]:
    """Return what one measurement says of a layer, by name in `OF_LAYERS`; what is undefined is missing."""
    assert record.conditioning is not None  # the monitor was asked for it
    found: dict[str, float | None] = {
        "norm_ratio": _gradient(record).norm_ratios.get(layer),
        "weight_alignment": record.weight.layers.get(label),
    }
    matrix = record.conditioning.layers.get(label)
    if matrix is not None:
        found |= {"condition_number": matrix.spectrum.condition_number, "residual": matrix.residual}
    return {name: value for name, value in found.items() if value is not None}


def _gradient(record: Measurement) -> Any:
    assert record.gradient is not None  # sequential rules are refused
    return record.gradient


def _why_undefined(record: Measurement, label: str) -> str:
    assert record.conditioning is not None
    return record.weight.undefined.get(label) or record.conditioning.undefined.get(label, "")
