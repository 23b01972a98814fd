"""A data set of the laboratory, with an MLP for it: what `feedalign diagnose` is about unless a model is given."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from feedalign.checks import whole_number
from feedalign.errors import ArgumentError
from feedalign.lab.data import load, prepare
from feedalign.lab.diagnose_command.subject import Subject
from feedalign.lab.options import DiagnoseConfig
from feedalign.networks import MLP

# A diagnosis trains two nets and measures each some thirty times on the probe. With this many weights that takes
# minutes on two cores; with this many layers too, because every layer is measured with every other one's graph.
MOST_WEIGHTS, MOST_LAYERS = 2 * 10**7, 300
MOST_SAMPLES = 10**7


def subject_of(config: DiagnoseConfig) -> Subject:
    """Return the data set's network and batches, which are in a new order each time they are read.

    Raises:
        ArgumentError: a value is out of range, or the network or the data would be too large.
        DataError: the data set was not fetched, or is damaged.
    """
    size = whole_number("batch_size", config.batch_size, 1)
    data = load(config.dataset or "digits")
    repeats = _repeats(config.repeat, data.classes)
    times = torch.tensor([repeats.get(label, 1) for label in range(data.classes)])[data.train_labels]
    samples = int(times.double().sum())  # no overflow: what is too large is refused
    if samples > MOST_SAMPLES:
        raise ArgumentError(
            f"repeat={' '.join(config.repeat)} makes {samples:,} training samples; at most {MOST_SAMPLES:,} are "
            "possible, so repeat less often"
        )
    if size > samples:
        raise ArgumentError(f"batch_size={size} must be at most the {samples} training samples")
    x, _ = prepare(data)
    return Subject(
        name=", ".join([data.name, *(f"class {label} × {count}" for label, count in repeats.items())]),
        model=MLP(_sizes(x.shape[1], config.hidden, data.classes), config.activation, seed=config.seed),
        loss_fn=functional.cross_entropy,
        batches=partial(_shuffled, x, data.train_labels, torch.arange(len(x)).repeat_interleave(times), size),
    )


def _shuffled(x: Tensor, y: Tensor, indices: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of one size in a new order, drawn from torch's global generator, which `diagnose` seeds."""
    whole = len(indices) // size * size
    order = torch.randperm(len(indices))
    for begin in range(0, whole, size):
        batch = indices[order[begin : begin + size]]
        yield x[batch], y[batch]


def _sizes(inputs: int, hidden: tuple[int, ...], classes: int) -> list[int]:
    if not hidden:
        raise ArgumentError("hidden=() leaves no hidden layer to align; give widths such as 100 100")
    if len(hidden) > MOST_LAYERS:
        raise ArgumentError(
            f"hidden has {len(hidden):,} layers; at most {MOST_LAYERS} are possible, so give fewer, such as 100 100"
        )
    if min(hidden) < 1:
        raise ArgumentError(f"hidden={hidden} must be widths of at least 1, such as 100 100")
    sizes = [inputs, *hidden, classes]
    weights = sum(below * above for below, above in itertools.pairwise(sizes))
    if weights > MOST_WEIGHTS:
        raise ArgumentError(
            f"hidden={' '.join(map(str, hidden))} makes a network of {weights:,} weights, {4 * weights / 1e9:,.1f} GB; "
            f"at most {MOST_WEIGHTS:,} weights can be diagnosed in minutes, so give smaller widths"
        )
    return sizes


def _repeats(given: tuple[str, ...], classes: int) -> dict[int, int]:
    """Return how often each class occurs, by label, of texts such as "3=20"."""
    found: dict[int, int] = {}
    for text in given:
        read = re.fullmatch(r"(\d{1,18})=(\d{1,18})", text)  # of as many digits as torch can count
        label, times = map(int, read.groups()) if read else (classes, 0)
        if label >= classes or times < 1:
            raise ArgumentError(
                f"repeat={text!r} must be LABEL=TIMES, such as 3=20, with a label from 0 to {classes - 1} and a "
                "whole number of at least 1"
            )
        if label in found:
            raise ArgumentError(f"repeat={text!r}: label {label} is there twice")
        found[label] = times
    return found
