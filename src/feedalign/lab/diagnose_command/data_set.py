"""A data set of the laboratory, with an MLP for it: what `feedalign diagnose` is about unless a model is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from feedalign.errors import ArgumentError
from feedalign.lab.data import load, prepare
from feedalign.lab.diagnose_command.config import DiagnoseConfig
from feedalign.networks import MLP

# A diagnosis holds weights, gradients and feedback of two nets. More than this would not fit many machines.
MOST_WEIGHTS = 10**8
MOST_SAMPLES = 10**7


class Shuffled:
    """Batches of equal size in a new order at each iteration, drawn from torch's global generator.

    `feedalign.diagnose` sets that generator, so that every pass sees the same order.

    Args:
        x: inputs.
        y: labels.
        indices: of the samples to draw from; a sample may be there several times.
        size: samples a batch.
    """

    def __init__(self, x: Tensor, y: Tensor, indices: Tensor, size: int) -> None:
        self.x, self.y, self.indices, self.size = x, y, indices, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        whole = len(self.indices) // self.size * self.size
        for batch in self.indices[torch.randperm(len(self.indices))[:whole]].split(self.size):
            yield self.x[batch], self.y[batch]


def model_and_batches(config: DiagnoseConfig) -> tuple[str, MLP, Shuffled]:
    """Return the name of the data, the network and its batches.

    Raises:
        ArgumentError: a value is out of range, or the network or the data would be too large.
        DataError: the data set was not fetched, or is damaged.
    """
    name = config.dataset or "digits"
    data = load(name)
    repeats = _repeats(config.repeat, data.classes)
    times = torch.ones(data.classes, dtype=torch.int64)
    for label, count in repeats.items():
        times[label] = count
        name += f", class {label} × {count}"
    counts = torch.bincount(data.train_labels, minlength=data.classes)
    samples = sum(int(count) * repeats.get(label, 1) for label, count in enumerate(counts))
    if samples > MOST_SAMPLES:
        raise ArgumentError(
            f"repeat={' '.join(config.repeat)} makes {samples:,} training samples; at most {MOST_SAMPLES:,} are "
            "possible, so repeat less often"
        )
    if config.batch_size > samples:
        raise ArgumentError(f"batch_size={config.batch_size} must be at most the {samples} training samples")
    x, _ = prepare(data)
    sizes = _sizes(x.shape[1], config.hidden, data.classes)
    indices = torch.arange(len(x)).repeat_interleave(times[data.train_labels])
    batches = Shuffled(x, data.train_labels, indices, config.batch_size)
    return name, MLP(sizes, config.activation, seed=config.seed), batches


def _sizes(inputs: int, hidden: tuple[int, ...], classes: int) -> list[int]:
    if not hidden:
        raise ArgumentError("hidden=() leaves no hidden layer to align; give widths such as 100 100")
    if min(hidden) < 1:
        raise ArgumentError(f"hidden={hidden} must be widths of at least 1, such as 100 100")
    sizes = [inputs, *hidden, classes]
    weights = sum(below * above for below, above in itertools.pairwise(sizes))
    if weights > MOST_WEIGHTS:
        raise ArgumentError(
            f"hidden={' '.join(map(str, hidden))} makes a network of {weights:,} weights, {4 * weights / 1e9:,.1f} GB; "
            f"at most {MOST_WEIGHTS:,} weights are possible, so give smaller widths"
        )
    return sizes


def _repeats(given: tuple[str, ...], classes: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for text in given:
        label, separator, times = text.partition("=")
        if not (separator and _is_whole(label) and _is_whole(times) and int(times) >= 1 and int(label) < classes):
            raise ArgumentError(
                f"repeat={text!r} must be LABEL=TIMES, such as 3=20, with a label from 0 to {classes - 1} and a "
                "whole number of at least 1"
            )
        if int(label) in found:
            raise ArgumentError(f"repeat={text!r}: label {label} is there twice")
        found[int(label)] = int(times)
    return found


def _is_whole(text: str) -> bool:
    return text.isdecimal() and len(text) <= 18  # what torch can count
