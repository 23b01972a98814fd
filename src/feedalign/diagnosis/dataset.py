"""A diagnosis as one xarray data set, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from feedalign.diagnosis.expectation import Expectation, Moment
from feedalign.diagnosis.result import Diagnosis
from feedalign.diagnosis.training import OF_WEIGHTS, Trained

SENT = ["plain", "conditioned"]
# By attribute of `Trained` and of `Expectation`: the name of the variable, and its dimensions besides net or sent.
OF_NETS = {
    "gradient_alignment": ("gradient_alignment", "step", "hidden"),
    "by_output": ("gradient_alignment_by_output", "hidden", "output"),
    "losses": ("loss", "loss_step"),
    "undefined": ("undefined", "layer"),
    **{name: (name, "layer") for name in ("norm_ratio", *OF_WEIGHTS)},
}
EXPECTED = {
    "gradient_alignment": ("expected_gradient_alignment", "hidden"),
    "by_output": ("expected_by_output", "hidden", "output"),
    "steps": ("predicted_steps",),
}
LONG_NAMES = {
    "conditioner": "P, for feedback.Conditioned",
    "gradient_alignment": "mean cosine over the samples of the probe",
    "expected_by_output": "gradient alignment in the first steps, of errors largest at an output",
    "predicted_steps": "steps to 1 % of the loss in a deep linear net with isotropic inputs",
}


def to_dataset(found: Diagnosis) -> xr.Dataset:
    """Return every number with named dimensions; what a net that diverged has no value for is NaN."""
    nets = list(found.trained.values())
    dataset = xr.Dataset(
        {
            **_of_moment("error", found.errors),
            **_of_moment("input_output", found.input_output),
            "conditioner": (("output", "output_2"), found.conditioner),
            **_stacked("sent", [found.expected[sent] for sent in SENT], EXPECTED),
            **_stacked("net", nets, OF_NETS),
            "diverged_at": ("net", np.array([each.diverged_at for each in nets], dtype=float)),  # None becomes NaN
            "alignability": ("layer", found.alignability),
            "alignability_channelwise": ("layer", found.alignability_channelwise),
        },
        coords={
            "sent": SENT,
            "net": list(found.trained),
            "conditioned": ("net", [each.conditioned for each in nets]),
            "hidden": list(found.points),
            "layer": list(found.layers),
            "step": list(nets[0].steps),
            "loss_step": list(nets[0].loss_steps),
        },
        attrs={
            "name": found.name,
            "samples": found.samples,
            "probe": found.probe,
            "steps": found.steps,
            "isotropic": int(found.isotropic),
        },
    )
    for name, text in LONG_NAMES.items():
        dataset[name].attrs["long_name"] = text
    return dataset


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
        expected={sent: Expectation(**_values(dataset.sel(sent=sent), EXPECTED)) for sent in SENT},
        trained={
            str(net): Trained(
                **_values(of_net, OF_NETS) | {"undefined": tuple(map(str, of_net.undefined.values))},
                conditioned=bool(of_net.conditioned),
                steps=tuple(map(int, of_net.step)),
                loss_steps=tuple(map(int, of_net.loss_step)),
                diverged_at=None if of_net.diverged_at.isnull() else int(of_net.diverged_at),
            )
            for net, of_net in ((net, dataset.sel(net=net)) for net in dataset.net.values)
        },
        alignability=dataset.alignability.values,
        alignability_channelwise=dataset.alignability_channelwise.values,
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


def _stacked(along: str, parts: list[Any], attributes: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return a variable for each attribute, with the parts along a new first dimension."""
    return {
        variable: ((along, *dimensions), [getattr(part, name) for part in parts])
        for name, (variable, *dimensions) in attributes.items()
    }


def _values(part: xr.Dataset, attributes: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    # [()] makes a number of an array without axes, and changes no other array.
    return {name: part[variable].values[()] for name, (variable, *_) in attributes.items()}
