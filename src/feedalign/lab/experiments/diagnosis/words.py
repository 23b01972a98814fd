"""A diagnosis in words and in a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from feedalign.lab.experiments.diagnosis.expectation import MOST_STEPS, Direction, directions

# Conditioned feedback is advised where theory gives it this much: the factor within which ill-conditioned outputs are
# to be learned as white ones are.
WORTH = 1.2
# Below this alignability a layer is named: its shape, not its training, keeps it from aligning.
LIMITED = 0.5


def diverged(dataset: xr.Dataset) -> bool:
    """Whether any net diverged."""
    return bool(dataset.diverged_at.notnull().any())


def _of(name: str, form: str) -> Callable[[xr.Dataset], str]:
    def entry(row: xr.Dataset) -> str:
        return "–" if row[name].isnull() else format(float(row[name]), form)

    return entry


# Heading, and the entry of one layer of one net. More to tell of a layer is one more of these.
COLUMNS: tuple[tuple[str, Callable[[xr.Dataset], str]], ...] = (
    ("net", lambda row: str(row.net.values)),
    ("layer", lambda row: str(row.layer.values)),
    ("expected", _of("expected", "+.2f")),
    ("(even)", _of("expected_even", "+.2f")),
    ("measured", _of("measured", "+.2f")),
    ("(even)", _of("measured_even", "+.2f")),
    ("norm ratio", _of("norm_ratio", ".2g")),
    ("weights", _of("weight_alignment", "+.2f")),
    ("at most", _of("alignability", ".2f")),
    ("cond(Â)", _of("condition_number", ".3g")),
    ("residual", _of("residual", ".2f")),
)


def table(dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Return the heading and a row for every layer of every net: what was expected, and what is measured.

    "(even)" is the mean over outputs of the mean over the samples whose error is largest there: every output counts
    alike, however many samples have it.
    """
    of_hidden = {
        "expected": dataset.expected_gradient_alignment.sel(sent=dataset.as_sent),
        "expected_even": dataset.expected_by_output.mean("output").sel(sent=dataset.as_sent),
        "measured": dataset.gradient_alignment.isel(step=-1),
        "measured_even": dataset.gradient_alignment_by_output.mean("output"),
    }
    # The readout has no such angle: NaN there.
    of_layer = {name: each.rename(hidden="layer").reindex(layer=dataset.layer) for name, each in of_hidden.items()}
    whole = dataset.drop_dims("hidden").assign(of_layer)
    rows = [
        [entry(whole.sel(net=net, layer=layer)) for _, entry in COLUMNS]
        for net in dataset.net.values
        for layer in dataset.layer.values
    ]
    return [heading for heading, _ in COLUMNS], rows


def before(dataset: xr.Dataset) -> list[str]:
    """Say what is seen before training: spectra, the outputs in them, and what follows for the feedback."""
    lines = [f"before training, {dataset.attrs['samples']} samples of {dataset.attrs['name']}:"]
    labels = {
        "error": "errors, E[e eᵀ]",
        "input_output": "inputs and outputs, Σ_yx Σ_xy" + " (inputs taken for isotropic)" * dataset.attrs["isotropic"],
    }
    for name, label in labels.items():
        of = {part: float(dataset[f"{name}_{part}"]) for part in ("condition_number", "effective_rank", "rank")}
        lines.append(
            f"  {label}: condition number {of['condition_number']:.3g}, effective rank {of['effective_rank']:.1f} of "
            f"{of['rank']:.0f}"
        )
        lines += [f"    {_named(direction)}" for direction in directions(dataset[f"{name}_moment"].values)]
    return lines


def _named(direction: Direction) -> str:
    """Say what is the matter with a direction."""
    many = direction.factor > 1
    size = f"{direction.factor:.3g} times" if many else f"1/{1 / direction.factor:.3g} of"
    outputs = ", ".join(map(str, direction.outputs))
    if not np.isnan(direction.correlation):
        what = f"outputs {outputs} are correlated ({direction.correlation:+.2f})"
    elif len(direction.outputs) == 1:
        what = f"output {outputs} is {'over' if many else 'under'}-represented, with {direction.excess:.3g} times the "
        what += "variance of the median output"
    else:
        what = f"outputs {outputs} together"
    return f"{'largest' if many else 'smallest'} direction, {size} the typical one: {what}"


def verdict(dataset: xr.Dataset) -> str:
    """Say in a paragraph what is at fault, which feedback to take, what is expected, and what was measured."""
    condition = float(dataset.error_condition_number)
    found = directions(dataset.error_moment.values)
    at_fault = list(dict.fromkeys(str(output) for direction in found for output in direction.outputs))
    if at_fault:
        which = f"output{'s' * (len(at_fault) > 1)} {', '.join(at_fault)}"
        sentences = [f"The errors are badly conditioned ({condition:.3g}); at fault: {which}."]
    else:
        sentences = [f"The errors are well conditioned ({condition:.3g}); no output is at fault."]
    sentences.append(_advice(*map(float, dataset.predicted_steps)))
    even = dataset.expected_by_output.mean(("hidden", "output"))
    sentences.append(
        f"Of plain feedback, theory expects a gradient alignment of {float(even.sel(sent='plain')):.2f} in the first "
        "steps, mean over layers and outputs."
    )
    if (dataset.alignability < LIMITED).any():
        sentences.append(_limited(dataset))
    for net in dataset.net.values:
        of_net, label = dataset.sel(net=net), "" if dataset.sizes["net"] == 1 else f", {net}"
        if of_net.diverged_at.notnull():
            sentences.append(f"Training{label} DIVERGED after {int(of_net.diverged_at)} steps; lower --lr.")
            continue
        by_output = of_net.gradient_alignment_by_output.mean("hidden").values
        worst = ""
        if not np.isnan(by_output).all():
            worst = f", worst for output {np.nanargmin(by_output)} ({np.nanmin(by_output):.2f})"
        sentences.append(
            f"Measured after {dataset.attrs['steps']} steps{label}: {np.nanmean(by_output):.2f}{worst}, loss "
            f"{float(of_net.loss.sel(when='before')):.3g} to {float(of_net.loss.sel(when='after')):.3g}."
        )
    return " ".join(sentences)


def _advice(plain: float, conditioned: float) -> str:
    """Say which feedback to take, from the steps that theory expects of both."""
    if np.isinf(conditioned):
        return "Theory has no advice on feedback: a deep linear net would hardly learn these outputs with either."
    if plain / conditioned < WORTH:
        saved = max(0.0, 1 - conditioned / plain)
        return f"Plain feedback will do: theory expects conditioned feedback to save {100 * saved:.0f} % of the steps."
    times = f"over {MOST_STEPS / conditioned:.1f}" if np.isinf(plain) else f"{plain / conditioned:.1f}"
    return (
        f"Take conditioned feedback, feedalign.ConditionedDFA: theory expects plain feedback to need {times} times as "
        "many steps."
    )


def _limited(dataset: xr.Dataset) -> str:
    """Name the layers whose weights can hardly align, and what would help."""
    few = dataset.sel(layer=dataset.layer[dataset.alignability < LIMITED])
    each = ", ".join(
        f"{layer} (with channelwise feedback {float(channelwise):.2f})" if channelwise > bound else str(layer)
        for layer, bound, channelwise in zip(
            few.layer.values, few.alignability.values, few.alignability_channelwise.values, strict=True
        )
    )
    most = f"{float(few.alignability.max()):.2f}"
    least = f"{float(few.alignability.min()):.2f}"
    return (
        "Sparse and shared weights can align with this feedback by at most "
        f"{most if most == least else f'{least} to {most}'}, whatever the training, in layer {each}: take feedback of "
        "their structure, feedalign.feedback.Smooth, or better learned feedback, feedalign.DirectKolenPollack."
    )


def notes(dataset: xr.Dataset) -> list[str]:
    """Say how to read the table, and why layers have no number for their weights."""
    undefined = zip(dataset.layer.values, dataset.undefined.values, strict=True)
    return [
        "expected, measured: gradient alignment, mean over samples; (even): mean over outputs, each counting alike",
        "weights: their alignment; at most: the most that any weights of the layer can reach with this feedback",
        *(f"layer {layer} has dashes, since {reason}" for layer, reason in undefined if reason),
    ]
