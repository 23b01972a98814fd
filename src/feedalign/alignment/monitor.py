"""Alignment along training: a callback for any loop that measures on a probe batch and disturbs nothing."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from feedalign.alignment.conditions import Conditioning, conditioning
from feedalign.alignment.gradient import At, GradientAlignment, gradient_alignment
from feedalign.alignment.weight import WeightAlignment, weight_alignment
from feedalign.anatomy import arguments, undisturbed
from feedalign.checks import flag, whole_number
from feedalign.errors import ArgumentError, DataError
from feedalign.rules import DirectRule, Wrapped, check_wrapped


class ScalarWriter(Protocol):
    """What takes scalars, such as `torch.utils.tensorboard.SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Take one number."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured when `step` steps were done.

    Attributes:
        step: steps done.
        gradient: gradient alignment; None under a sequential rule, which sends no error straight to a layer.
        weight: weight alignment.
        conditioning: of errors and alignment matrices, if asked for.
    """

    step: int
    gradient: GradientAlignment | None
    weight: WeightAlignment
    conditioning: Conditioning | None

    @property
    def scalars(self) -> dict[str, float]:
        """Every number by "quantity/layer"."""
        numbers: dict[str, float] = {}
        if self.gradient is not None:
            numbers |= {f"gradient_alignment/{name}": value for name, value in self.gradient.layers.items()}
            numbers["gradient_alignment/total"] = self.gradient.total
            numbers |= {f"norm_ratio/{name}": value for name, value in self.gradient.norm_ratios.items()}
        numbers |= {f"weight_alignment/{name}": value for name, value in self.weight.layers.items()}
        numbers["weight_alignment/total"] = self.weight.total
        if self.conditioning is not None:
            numbers["condition_number/error"] = self.conditioning.error.condition_number
            for name, layer in self.conditioning.layers.items():
                numbers[f"condition_number/{name}"] = layer.spectrum.condition_number
                numbers[f"residual/{name}"] = layer.residual
        return numbers


class AlignmentMonitor:
    """Measure a net on a fixed probe batch every so many steps of whatever loop trains it.

    Call it with the number of steps done, before each step:

    >>> import torch, feedalign as fa
    >>> net = fa.DFA(fa.networks.MLP([4, 8, 3]), seed=0)
    >>> x, y = torch.randn(20, 4), torch.arange(20) % 3
    >>> monitor = fa.AlignmentMonitor(net, torch.nn.functional.cross_entropy, x, y, every=5)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> for step in range(11):
    ...     _ = monitor(step)
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.cross_entropy(net(x), y).backward()
    ...     optimizer.step()
    >>> len(monitor.records)
    3

    Training runs to the same bits with and without it: gradients, random state, buffers (batch-norm statistics,
    learned feedback) and the mode of every module are as before. It measures in evaluation mode, where dropout is off
    and batch-norm uses its running statistics, and outside of autocast.

    Args:
        net: a wrapped model.
        loss_fn: scalar loss of (output, y).
        x: inputs of the probe batch, or a tuple of them.
        y: whatever loss_fn takes.
        every: steps from one measurement to the next; "log" measures at steps 0, 1, 2, ... 10, then ten times a decade.
        at: where gradients are compared, see `gradient_alignment`.
        conditioning: whether to measure `conditioning` too.
        csv_file: file that gets a row for each measurement. An existing file is appended to.
        writer: gets every number too, for example a TensorBoard `SummaryWriter`.

    Attributes:
        records: the measurements so far.

    Raises:
        ArgumentError: `every` is no number of steps, `conditioning` is no bool, or `net` is not wrapped.
        DataError: `csv_file` exists with other columns, or cannot be written.
    """

    def __init__(
        self,
        net: Wrapped,
        loss_fn: Callable[[Any, Any], Tensor],
        x: Any,
        y: Any,
        *,
        every: int | Literal["log"] = 100,
        at: At = "preactivation",
        conditioning: bool = False,
        csv_file: Path | str | None = None,
        writer: ScalarWriter | None = None,
    ) -> None:
        check_wrapped(net)
        if not (isinstance(every, str) and every == "log"):  # an array would be compared entry by entry
            every = whole_number("every", every, at_least=1, advice='give a number of steps, or "log"')
        self.net, self.loss_fn, self.x, self.y = net, loss_fn, x, y
        self.every, self.at, self.conditioning = every, at, flag("conditioning", conditioning)
        self.csv_file = None if csv_file is None else Path(csv_file)
        self.writer = writer
        self.records: list[Measurement] = []

    def __call__(self, step: int) -> Measurement | None:
        """Measure if a measurement is due when `step` steps are done; return it, or None."""
        return self.measure(step) if self._due(step) else None

    def measure(self, step: int) -> Measurement:
        """Measure now."""
        net, batch = self.net, (self.loss_fn, self.x, self.y)
        if not net.drawn and net.needs_data:
            raise ArgumentError(
                "the feedback is not drawn yet, and its recipe looks at the first batch, which is not to be the probe; "
                "give the rule example_input=, or measure after the first step"
            )
        direct = net if isinstance(net, DirectRule) else None
        with undisturbed(net, net.model):
            if not net.drawn:
                net.prepare(*arguments(net.model, self.x))
            measurement = Measurement(
                step=step,
                gradient=gradient_alignment(direct, *batch, at=self.at) if direct else None,
                weight=weight_alignment(net),
                conditioning=conditioning(direct, *batch) if direct and self.conditioning else None,
            )
        self.records.append(measurement)
        if self.csv_file is not None:
            _append(self.csv_file, {"step": step, **measurement.scalars})
        if self.writer is not None:
            for tag, value in measurement.scalars.items():
                self.writer.add_scalar(tag, value, step)
        return measurement

    def _due(self, step: int) -> bool:
        if not isinstance(self.every, str):
            return step % self.every == 0
        # The first whole step at or after each tenth of a decade.
        return step <= 10 or math.floor(10 * math.log10(step)) > math.floor(10 * math.log10(step - 1))


def _append(file: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file, with a heading if it is new."""
    try:
        heading = next(csv.reader(file.read_text(encoding="utf-8").splitlines()[:1])) if file.exists() else None
        if heading is None or heading == list(row):
            with file.open("a", newline="", encoding="utf-8") as opened:
                csv.writer(opened).writerows([row.values()] if heading else [row, row.values()])
            return
    except (OSError, StopIteration) as error:
        raise DataError(f"cannot write {file} ({error}); choose another file") from error
    raise DataError(
        f"{file} has the columns {', '.join(heading)}, but the measurement has {', '.join(row)}; choose another file"
    )
