"""Look at a network before training, train it, measure: everything `feedalign diagnose` tells, as one data set."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from feedalign.alignment import AlignmentMonitor, Measurement, alignability, output_errors
from feedalign.anatomy import undisturbed
from feedalign.errors import ArgumentError, OutputError
from feedalign.lab.experiments.common.progress import Progress
from feedalign.lab.experiments.diagnosis.expectation import (
    Seen,
    conditioner,
    expected_cosines,
    predicted_steps,
    second_moment,
    spectrum,
)
from feedalign.lab.experiments.diagnosis.own_code import seeded
from feedalign.lab.experiments.diagnosis.setting import Setting, pair_of
from feedalign.rules import ConditionedDFA, DirectRule

Array = NDArray[np.float64]

SENT = ("plain", "conditioned")
# Above this many numbers Σ_yx is not made; what is expected is then that of isotropic inputs.
_LARGEST = 10**8


def run(setting: Setting, progress: Progress) -> xr.Dataset:
    """Work out what theory expects of the untrained net, train every net of the setting, and measure.

    Where a net diverges, what is measured is NaN from there on, and `diverged_at` says after how many steps.
    """
    seen = look(setting)
    expected = _expected(setting.net, seen)  # before anything is trained
    with undisturbed(setting.net):
        errors = output_errors(setting.net, setting.loss_fn, *setting.probe)
    loudest = errors.abs().argmax(-1).flatten().cpu().numpy()
    total = len(setting.nets) * setting.config.steps
    trained = [
        _train(setting, net, partial(_within, progress, i * setting.config.steps, total))
        for i, net in enumerate(setting.nets.values())
    ]
    attrs = {
        "name": setting.name,
        "samples": len(seen.errors),
        "probe": len(loudest),
        "steps": setting.config.steps,
        "isotropic": int(seen.isotropic),
    }
    return xr.merge([expected, _measured(setting, trained, loudest, seen.errors.shape[1])]).assign_attrs(attrs)


def _expected(net: DirectRule, seen: Seen) -> xr.Dataset:
    """Return what is seen before training, and what theory makes of it."""
    moments = {"error": second_moment(seen.errors), "input_output": seen.cov_yx @ seen.cov_yx.T}
    spectra = {name: spectrum(moment) for name, moment in moments.items()}
    feedback = [F.detach().double().cpu().numpy() for F in net.feedback_matrices.values()]
    P = conditioner(seen.errors)
    cosines = [expected_cosines(seen, feedback, conditioning) for conditioning in (None, P)]
    loudest = np.abs(seen.errors).argmax(1)
    return xr.Dataset(
        {
            **{f"{name}_moment": (("output", "output_2"), moment) for name, moment in moments.items()},
            **{f"{name}_eigenvalue": ("direction", each.values.numpy()) for name, each in spectra.items()},
            **{f"{name}_rank": each.rank for name, each in spectra.items()},
            **{f"{name}_condition_number": each.condition_number for name, each in spectra.items()},
            **{f"{name}_effective_rank": each.effective_rank for name, each in spectra.items()},
            "conditioner": (("output", "output_2"), P, {"long_name": "P, for feedalign.feedback.Conditioned"}),
            "expected_gradient_alignment": (("sent", "hidden"), [np.nanmean(each, axis=1) for each in cosines]),
            "expected_by_output": (
                ("sent", "hidden", "output"),
                [_by_output(each, loudest, len(P)) for each in cosines],
                {"long_name": "gradient alignment in the first steps, of errors largest at an output"},
            ),
            "predicted_steps": (
                "sent",
                predicted_steps(moments["error"], feedback),
                {"long_name": "steps to 1 % of the loss in a deep linear net, isotropic inputs"},
            ),
        },
        coords={"sent": list(SENT), "hidden": list(net.points)},
    )


def _measured(setting: Setting, trained: list[_Trained], loudest: NDArray[np.int64], outputs: int) -> xr.Dataset:
    """Return what was measured along training, and of every layer at its end."""
    # A point that runs several times has a block for each run, which hold the same modules but for the first.
    blocks = {block.point or "readout": block for block in setting.net.blocks}
    labels = [", ".join(block.weights) or block.point for block in blocks.values()]
    steps = sorted({record.step for each in trained for record in each.records})
    gradient = np.full((len(trained), len(steps), len(setting.net.points)), np.nan)
    for values, each in zip(gradient, trained, strict=True):
        for record in each.records:
            values[steps.index(record.step)] = list(_gradient(record).layers.values())
    last = {name: np.full((len(trained), len(blocks)), np.nan) for name in _LAST}
    by_output = np.full((len(trained), len(setting.net.points), outputs), np.nan)
    undefined = [""] * len(blocks)
    bounds = alignability(setting.net).layers  # conditioning mixes the outputs, and changes no bound
    of_layer = [bounds.get(label) for label in labels]
    for n, of_net in enumerate(trained):
        if of_net.diverged_at is not None:
            continue
        record = of_net.records[-1]
        samples = np.stack([cosine.flatten().cpu().numpy() for cosine in _gradient(record).per_sample.values()])
        by_output[n] = _by_output(samples, loudest, outputs)
        undefined = [_reason(record, label) for label in labels]
        for name, of_record in _LAST.items():
            last[name][n] = [of_record(record, label, point) for label, point in zip(labels, blocks, strict=True)]
    return xr.Dataset(
        {
            "gradient_alignment": (("net", "step", "hidden"), gradient),
            "gradient_alignment_by_output": (("net", "hidden", "output"), by_output),
            **{name: (("net", "layer"), values) for name, values in last.items()},
            "undefined": ("layer", undefined),
            "alignability": ("layer", [np.nan if each is None else each.bound for each in of_layer]),
            "alignability_channelwise": ("layer", [np.nan if each is None else each.channelwise for each in of_layer]),
            "loss": (("net", "when"), [each.losses for each in trained]),
            "diverged_at": ("net", [np.nan if each.diverged_at is None else each.diverged_at for each in trained]),
        },
        coords={
            "net": list(setting.nets),
            "as_sent": ("net", [SENT[isinstance(each, ConditionedDFA)] for each in setting.nets.values()]),
            "hidden": list(setting.net.points),
            "layer": list(blocks),
            "step": steps,
            "when": ["before", "after"],
        },
    )


def look(setting: Setting) -> Seen:
    """Collect errors and the input-output covariance of the untrained net, over batches of one size.

    Raises:
        ArgumentError: no error is there to learn from.
    """
    net, loss_fn, size = setting.net, setting.loss_fn, None
    errors: list[Tensor] = []
    silent: list[Tensor] = []
    cov: Tensor | None = None
    vectors = True
    with undisturbed(net), seeded(setting.config.seed):
        for x, y in map(pair_of, setting.batches):
            e = output_errors(net, loss_fn, x, y)
            # A smaller last batch has a larger share of the loss for each sample.
            if size not in (None, e.shape[:-1]):
                break
            size = e.shape[:-1]
            e0 = output_errors(net, loss_fn, x, y, silent=True).flatten(0, -2).double()
            errors.append(e.flatten(0, -2).double())
            silent.append(e0)
            inputs = _vectors(x, size)
            vectors = vectors and inputs is not None and inputs.shape[1] * e0.shape[1] <= _LARGEST
            if inputs is not None and vectors:
                product = -e0.T @ inputs
                vectors = cov is None or cov.shape == product.shape
                cov = product if cov is None or not vectors else cov + product
            if sum(map(len, errors)) >= setting.config.samples:
                break
    e, e0 = torch.cat(errors), torch.cat(silent)
    if not (e.any() and e0.any() and e.isfinite().all()):
        raise ArgumentError("the errors of the untrained net are zero or not finite, so there is nothing to learn from")
    if cov is None or not vectors or not cov.any():
        values, basis = torch.linalg.eigh(e0.T @ e0)  # of isotropic inputs Σ_yx Σ_xy is this
        return Seen(e.cpu().numpy(), (basis * values.clamp(min=0).sqrt()).cpu().numpy(), True)
    return Seen(e.cpu().numpy(), (cov / len(e)).cpu().numpy(), False)


def _vectors(x: Any, batch: torch.Size) -> Tensor | None:
    """Return inputs as [samples, n_0]; None where they are indices, several, or not one for each error."""
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.shape[: len(batch)] == batch):
        return None
    return x.reshape(batch.numel(), -1).double()


@dataclass(frozen=True, eq=False)
class _Trained:
    records: list[Measurement]
    losses: tuple[float, float]
    diverged_at: int | None


def _within(progress: Progress, before: int, total: int, steps: int) -> None:
    """Tell how far all nets are when the present one has taken this many steps."""
    progress(before + steps, total)


def _train(setting: Setting, net: DirectRule, progress: Callable[[int], None]) -> _Trained:
    """Train a net by plain gradient descent, and measure at log-spaced steps."""
    config = setting.config
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=config.lr)
    monitor = AlignmentMonitor(net, setting.loss_fn, *setting.probe, every="log", conditioning=True)
    before = _loss(setting, net)
    done = 0
    with seeded(config.seed):
        try:
            for x, y in itertools.islice(setting.stream(), config.steps):
                monitor(done)
                optimizer.zero_grad()
                loss = setting.loss_fn(net(*(x if isinstance(x, tuple) else (x,))), y)
                if not loss.isfinite():
                    return _Trained(monitor.records, (before, np.nan), done)
                loss.backward()
                optimizer.step()
                done += 1
                progress(done)
            monitor.measure(done)
        except OutputError:  # a derivative that is not finite
            return _Trained(monitor.records, (before, np.nan), done)
    return _Trained(monitor.records, (before, _loss(setting, net)), None)


def _loss(setting: Setting, net: DirectRule) -> float:
    x, y = setting.probe
    with undisturbed(net), torch.no_grad():
        return float(setting.loss_fn(net(*(x if isinstance(x, tuple) else (x,))), y))


def _by_output(cosines: Array, loudest: NDArray[np.int64], outputs: int) -> Array:
    """Return the mean cosine of the samples whose error is largest at an output, [hidden, C]; NaN without any."""
    found = np.full((len(cosines), outputs), np.nan)
    for output in range(outputs):
        samples = cosines[:, loudest == output]
        known = ~np.isnan(samples)
        count = known.sum(1)
        total = np.where(known, samples, 0).sum(1)
        found[:, output] = np.divide(total, count, out=np.full(len(cosines), np.nan), where=count > 0)
    return found


def _gradient(record: Measurement) -> Any:
    assert record.gradient is not None  # sequential rules are refused
    return record.gradient


def _condition(record: Measurement, label: str) -> Any:
    assert record.conditioning is not None
    return record.conditioning.layers.get(label)


def _reason(record: Measurement, label: str) -> str:
    assert record.conditioning is not None
    return record.weight.undefined.get(label) or record.conditioning.undefined.get(label, "")


# What is measured at the end of every layer: a number from (record, label of the weights, point).
_LAST: dict[str, Callable[[Measurement, str, str], float]] = {
    "norm_ratio": lambda record, _, point: _gradient(record).norm_ratios.get(point, np.nan),
    "weight_alignment": lambda record, label, _: record.weight.layers.get(label, np.nan),
    "condition_number": lambda record, label, _: (
        np.nan if (found := _condition(record, label)) is None else found.spectrum.condition_number
    ),
    "residual": lambda record, label, _: np.nan if (found := _condition(record, label)) is None else found.residual,
}
