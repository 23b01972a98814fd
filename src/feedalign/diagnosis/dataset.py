"""A diagnosis as one xarray data set, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from feedalign.diagnosis.expectation import Array, Expectation, Moment
from feedalign.diagnosis.result import Diagnosis
from feedalign.diagnosis.training import OF_LAYERS, Trained

SENT = ["plain", "conditioned"]


def to_dataset(found: Diagnosis) -> xr.Dataset:
    """Return every number with named dimensions."""
    nets = list(found.trained.values())
    # Every net is measured at the same steps until it diverges.
    steps = max((each.steps for each in nets), key=len)
    loss_steps = max((each.loss_steps for each in nets), key=len)
    return xr.Dataset(
        {
            **_of_moment("error", found.errors),
            **_of_moment("input_output", found.input_output),
            "conditioner": (("output", "output_2"), found.conditioner, {"long_name": "P, for feedback.Conditioned"}),
            **_of_expectations(found.expected),
            "gradient_alignment": (
                ("net", "step", "hidden"),
                _padded([each.gradient_alignment for each in nets], len(steps)),
                {"long_name": "mean cosine over the samples of the probe"},
            ),
            "loss": (("net", "loss_step"), _padded([each.losses for each in nets], len(loss_steps))),
            "measurements": ("net", [len(each.steps) for each in nets]),
            "loss_measurements": ("net", [len(each.loss_steps) for each in nets]),
            "gradient_alignment_by_output": (("net", "hidden", "output"), [each.by_output for each in nets]),
            **{name: (("net", "layer"), [getattr(each, name) for each in nets]) for name in OF_LAYERS},
            "undefined": (("net", "layer"), [list(each.undefined) for each in nets]),
            "alignability": ("layer", found.alignability),
            "alignability_channelwise": ("layer", found.alignability_channelwise),
            "diverged_at": ("net", [np.nan if each.diverged_at is None else each.diverged_at for each in nets]),
        },
        coords={
            "sent": SENT,
            "net": list(found.trained),
            "conditioned": ("net", [each.conditioned for each in nets]),
            "hidden": list(found.points),
            "layer": list(found.layers),
            "step": list(steps),
            "loss_step": list(loss_steps),
        },
        attrs={
            "name": found.name,
            "samples": found.samples,
            "probe": found.probe,
            "steps": found.steps,
            "isotropic": int(found.isotropic),
        },
    )


def from_dataset(dataset: xr.Dataset) -> Diagnosis:
    """Return the diagnosis that `to_dataset` made this of."""
    attrs = dataset.attrs
    return Diagnosis(
        name=str(attrs["name"]),
        samples=int(attrs["samples"]),
        probe=int(attrs["probe"]),
        steps=int(attrs["steps"]),
        isotropic=bool(attrs["isotropic"]),
        points=tuple(map(str, dataset.hidden.values)),
        layers=tuple(map(str, dataset.layer.values)),
        errors=Moment(dataset.error_moment.values),
        input_output=Moment(dataset.input_output_moment.values),
        conditioner=dataset.conditioner.values,
        expected={
            sent: Expectation(
                dataset.expected_gradient_alignment.sel(sent=sent).values,
                dataset.expected_by_output.sel(sent=sent).values,
                float(dataset.predicted_steps.sel(sent=sent)),
            )
            for sent in SENT
        },
        trained={str(net): _trained(dataset.sel(net=net)) for net in dataset.net.values},
        alignability=dataset.alignability.values,
        alignability_channelwise=dataset.alignability_channelwise.values,
    )


def _trained(of_net: xr.Dataset) -> Trained:
    measured, losses = int(of_net.measurements), int(of_net.loss_measurements)
    return Trained(
        conditioned=bool(of_net.conditioned),
        probe=int(of_net.attrs["probe"]),
        steps=tuple(int(step) for step in of_net.step.values[:measured]),
        gradient_alignment=of_net.gradient_alignment.values[:measured],
        by_output=of_net.gradient_alignment_by_output.values,
        **{name: of_net[name].values for name in OF_LAYERS},
        undefined=tuple(map(str, of_net.undefined.values)),
        loss_steps=tuple(int(step) for step in of_net.loss_step.values[:losses]),
        losses=of_net.loss.values[:losses],
        diverged_at=None if of_net.diverged_at.isnull() else int(of_net.diverged_at),
    )


def _of_moment(name: str, moment: Moment) -> dict[str, Any]:
    spectrum = moment.spectrum
    return {
        f"{name}_moment": (("output", "output_2"), moment.matrix),
        f"{name}_eigenvalue": ("direction", spectrum.values.numpy()),
        f"{name}_rank": spectrum.rank,
        f"{name}_condition_number": spectrum.condition_number,
        f"{name}_effective_rank": spectrum.effective_rank,
    }


def _of_expectations(expected: dict[str, Expectation]) -> dict[str, Any]:
    each = [expected[sent] for sent in SENT]
    return {
        "expected_gradient_alignment": (("sent", "hidden"), [one.gradient_alignment for one in each]),
        "expected_by_output": (
            ("sent", "hidden", "output"),
            [one.by_output for one in each],
            {"long_name": "gradient alignment in the first steps, of errors largest at an output"},
        ),
        "predicted_steps": (
            "sent",
            [one.steps for one in each],
            {"long_name": "steps to 1 % of the loss in a deep linear net with isotropic inputs"},
        ),
    }


def _padded(arrays: list[Array], length: int) -> Array:
    """Return arrays of different lengths as one, with NaN behind the end of the shorter ones."""
    whole = np.full((len(arrays), length, *arrays[0].shape[1:]), np.nan)
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
    return whole
