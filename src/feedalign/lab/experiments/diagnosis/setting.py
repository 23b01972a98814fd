"""What is diagnosed: a model in a rule, its loss and its batches, of a data set or of the user's own."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from feedalign import feedback
from feedalign.alignment import output_errors
from feedalign.anatomy import undisturbed
from feedalign.errors import ArgumentError, FeedbackShapeError, OutputError, PointsError
from feedalign.lab.data import load, prepare
from feedalign.lab.experiments.diagnose_config import DiagnoseConfig
from feedalign.lab.experiments.diagnosis.own_code import kind_of, made_by, module_of, seeded
from feedalign.networks import MLP
from feedalign.rules import DFA, ConditionedDFA, DirectRule, SequentialRule

RECIPES = {
    "gaussian": feedback.Gaussian,
    "uniform": feedback.Uniform,
    "orthogonal": feedback.Orthogonal,
    "rademacher": feedback.Rademacher,
    "channelwise": feedback.Channelwise,
    "smooth": feedback.Smooth,
}
# What only a data set's own network and batches are made from.
_OF_DATASETS = ("repeat", "hidden", "activation", "batch_size")


@dataclass(frozen=True)
class Identity:
    """What decides the result: the config, and a digest of what code of the user's own made of it."""

    config: DiagnoseConfig
    digest: str


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything ready to be looked at and trained.

    Attributes:
        config: as it was asked for.
        name: of what is diagnosed.
        nets: by name, the model in each rule it is trained with; "plain" and "conditioned" unless it came wrapped.
        loss_fn: scalar loss of (output, y).
        batches: of training; can be iterated anew.
        probe: (x, y) of the samples on which alignment is measured.
    """

    config: DiagnoseConfig
    name: str
    nets: dict[str, DirectRule]
    loss_fn: Callable[[Any, Any], Tensor]
    batches: Iterable[Any]
    probe: tuple[Any, Any]

    @property
    def net(self) -> DirectRule:
        """The first of the nets: what is looked at before training."""
        return next(iter(self.nets.values()))

    @property
    def identity(self) -> Identity:
        """Digest of code, model, probe and first errors: a run of this config on anything else is another run."""
        digest = hashlib.sha256(repr(self.net.model).encode())
        if self.config.model is not None:
            digest.update(inspect.getsource(module_of(self.config.model)).encode())
        with undisturbed(self.net):
            errors = output_errors(self.net, self.loss_fn, *self.probe)
        for tensor in (*self.net.state_dict().values(), errors):
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return Identity(self.config, digest.hexdigest()[:12])

    def stream(self) -> Iterator[tuple[Any, Any]]:
        """Yield batches without end, from the beginning again after the last."""
        while True:
            yield from map(pair_of, self.batches)


class _Shuffled:
    """Batches of equal size in a new order at each iteration, from torch's own generator, which `seeded` sets."""

    def __init__(self, x: Tensor, y: Tensor, size: int) -> None:
        self.x, self.y, self.size = x, y, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        whole = len(self.x) // self.size * self.size
        for indices in torch.randperm(len(self.x))[:whole].split(self.size):
            yield self.x[indices], self.y[indices]


def prepared(config: DiagnoseConfig) -> Setting:
    """Return the model wrapped, its feedback drawn, and the batches of a config.

    Raises:
        ArgumentError: a value is out of range, or what the user's function gave cannot be diagnosed; says why.
        DataError: the data set was not fetched, or is damaged.
    """
    for name, least in {"steps": 1, "batch_size": 1, "samples": 1, "probe": 1, "seed": 0}.items():
        if getattr(config, name) < least:
            raise ArgumentError(f"{name}={getattr(config, name)} must be at least {least}")
    if not (math.isfinite(config.lr) and config.lr > 0):
        raise ArgumentError(f"lr={config.lr} must be a positive number")
    if config.model is None:
        return _of_dataset(config)
    if config.dataset is not None:
        raise ArgumentError(f"got dataset={config.dataset!r} and model={config.model!r}; give one of them")
    for name in _OF_DATASETS:
        if getattr(config, name) != getattr(DiagnoseConfig(), name):
            raise ArgumentError(f"{name} is for a data set; with --model the function makes network and batches")
    model, loss_fn, batches, points = made_by(config.model, config.seed)
    return _wrapped(config, config.model, model, loss_fn, batches, config.points or points)


def _of_dataset(config: DiagnoseConfig) -> Setting:
    name = config.dataset or "digits"
    data = load(name)
    x, _ = prepare(data)
    times = torch.ones(data.classes, dtype=torch.int64)
    for label, count in _repeats(config.repeat, data.classes).items():
        times[label] = count
        name += f", class {label} × {count}"
    x, y = (each.repeat_interleave(times[data.train_labels], 0) for each in (x, data.train_labels))
    if config.batch_size > len(x):
        raise ArgumentError(f"batch_size={config.batch_size} must be at most the {len(x)} training samples")
    if config.points:
        raise ArgumentError("points is for a model of your own; those of a data set's network are its hidden layers")
    model = MLP([x.shape[1], *config.hidden, data.classes], config.activation, seed=config.seed)
    if not config.hidden:
        raise ArgumentError("hidden=() leaves no hidden layer to align; give widths such as 100 100")
    return _wrapped(config, name, model, functional.cross_entropy, _Shuffled(x, y, config.batch_size), ())


def _repeats(given: tuple[str, ...], classes: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for text in given:
        label, separator, times = text.partition("=")
        if not (separator and label.isdecimal() and times.isdecimal() and int(times) >= 1 and int(label) < classes):
            raise ArgumentError(
                f"repeat={text!r} must be LABEL=TIMES, such as 3=20, with a label from 0 to {classes - 1} and a "
                "whole number of at least 1"
            )
        if int(label) in found:
            raise ArgumentError(f"repeat={text!r}: label {label} is there twice")
        found[int(label)] = int(times)
    return found


def _wrapped(
    config: DiagnoseConfig,
    name: str,
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    points: tuple[str, ...],
) -> Setting:
    """Wrap the model in the rules to compare, unless it is; take the probe, and see that it all fits together."""
    nets: dict[str, DirectRule]
    if isinstance(model, SequentialRule):
        raise ArgumentError(
            f"the model is wrapped in {type(model).__name__}, which sends no error straight to a layer; return the "
            "bare model, or one in a direct rule such as DFA"
        )
    if isinstance(model, DirectRule):
        if points or config.feedback != DiagnoseConfig.feedback:
            raise ArgumentError("the model is wrapped already; points and feedback are for a bare one")
        nets = {type(model).__name__: model}
    else:
        options: Any = {"points": points or "auto", "feedback": RECIPES[config.feedback](), "seed": config.seed}
        twin = copy.deepcopy(model)
        try:
            nets = {"plain": DFA(model, **options), "conditioned": ConditionedDFA(twin, **options)}
        except PointsError as error:
            raise ArgumentError(f"{error}; points go by --points, or come fourth from the function") from error
    setting = Setting(config, name, nets, loss_fn, batches, (None, None))
    with seeded(config.seed):
        probe = _probe(setting)
        for net in nets.values():
            net.train()
            try:
                with undisturbed(net):
                    output_errors(net, loss_fn, *probe)
            except (PointsError, FeedbackShapeError, OutputError) as error:
                raise ArgumentError(str(error)) from error
            except Exception as error:
                raise ArgumentError(
                    f"model or loss failed on the first samples, {type(error).__name__}: {error}; batches must be "
                    "(x, y) as loss(model(x), y) takes them"
                ) from error
    return Setting(config, name, nets, loss_fn, batches, probe)


def _probe(setting: Setting) -> tuple[Any, Any]:
    """Return as many samples as asked for from the first batches; the first batch where they cannot be joined."""
    joined: list[tuple[Any, Any]] = []
    for x, y in map(pair_of, setting.batches):
        if joined and _shapes(x, y) != _shapes(*joined[0]):
            break
        joined.append((x, y))
        if _shapes(x, y) is None or sum(len(x) for x, _ in joined) >= setting.config.probe:
            break
    if not joined:
        raise ArgumentError("there is no batch: what was given to iterate over is empty; give at least one (x, y)")
    if _shapes(*joined[0]) is None:
        return joined[0]
    x, y = (torch.cat(side)[: setting.config.probe] for side in zip(*joined, strict=True))
    return x, y


def _shapes(x: Any, y: Any) -> tuple[torch.Size, torch.Size] | None:
    """Return the shapes of one sample; None where they cannot be joined along a first axis."""
    tensors = isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim and y.ndim
    return (x.shape[1:], y.shape[1:]) if tensors else None


def pair_of(batch: Any) -> tuple[Any, Any]:
    """Return (x, y) of a batch, x as a Tensor or a tuple of inputs; ArgumentError unless it is a pair."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise ArgumentError(f"a batch is {kind_of(batch)}, expected a pair (x, y); y is whatever the loss takes")
    x, y = batch
    return (tuple(x) if isinstance(x, list) else x), y
