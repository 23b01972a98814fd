"""A diagnosis as text: what was seen before training, a table, and the answer in short sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feedalign.diagnosis.expectation import MOST_STEPS, Array, Direction, Moment
from feedalign.diagnosis.result import Diagnosis
from feedalign.diagnosis.training import Trained

# Below this alignability a layer is named: its shape, not its training, keeps it from aligning.
LIMITED = 0.5
# A mean gradient alignment above this one is called good, below the other one poor. The update of a layer then has
# more than 0.3, or less than 0.1, of its length along the true gradient; chance is 0.
ALIGNED, POOR = 0.3, 0.1
# The times of steps from which on theory's estimate is told: the factor within which white outputs are learned too.
WORTH = 1.2

HEADING = (
    "rule", "layer", "expected", "(even)", "measured", "(even)", "norm ratio", "weights", "at most", "cond(Â)",
    "residual",
)  # fmt: skip
NOTES = (
    "expected: gradient alignment in the first steps of a deep linear network. Mean over samples.",
    "measured: gradient alignment after training. Mean over samples.",
    "(even): the same, with every output counted alike, however few samples have it.",
    "norm ratio: length of what the rule sends, over the length of the true gradient.",
    "weights: weight alignment. at most: the largest that any weights of the layer can have with this feedback.",
    "cond(Â): condition number of the alignment matrix. residual: share of the weights that Â does not describe.",
)


def text(found: Diagnosis) -> str:
    """Return the whole diagnosis as plain text, without a line break at the end."""
    lines = [f"Diagnosis of {found.name}.", "", *before(found), "", *table(found), "", *NOTES, *_dashes(found), ""]
    return "\n".join([*lines, "Answer:", *(f"  {line}" for line in answer(found))])


def before(found: Diagnosis) -> list[str]:
    """Say what is seen before training: the spectra, and which outputs stand out."""
    isotropic = " (inputs taken for isotropic)" if found.isotropic else ""
    return [
        f"Before training, {found.samples} samples:",
        *_of_moment("errors, E[e eᵀ]", found.errors),
        *_of_moment(f"inputs and outputs, Σ_yx Σ_xy{isotropic}", found.input_output),
    ]


def _of_moment(label: str, moment: Moment) -> list[str]:
    spectrum = moment.spectrum
    return [
        f"  {label}: condition number {spectrum.condition_number:.3g}, effective rank {spectrum.effective_rank:.1f} of "
        f"{spectrum.rank}",
        *(f"    {_named(direction)}" for direction in moment.directions),
    ]


def _named(direction: Direction) -> str:
    """Say which outputs make up a direction."""
    many = direction.factor > 1
    size = f"{direction.factor:.3g} times" if many else f"1/{1 / direction.factor:.3g} of"
    outputs = ", ".join(map(str, direction.outputs))
    if not np.isnan(direction.correlation):
        what = f"outputs {outputs} are correlated ({direction.correlation:+.2f})"
    elif len(direction.outputs) == 1:
        what = (
            f"output {outputs} is {'over' if many else 'under'}-represented, with {direction.excess:.3g} times the "
            "variance of the median output"
        )
    else:
        what = f"outputs {outputs} together"
    return f"{'largest (learned first)' if many else 'smallest (learned last)'}, {size} the typical direction: {what}"


def table(found: Diagnosis) -> list[str]:
    """Return the heading and a row for each layer of each net, in columns."""
    rows = [list(HEADING)]
    for name, net in found.trained.items():
        for i, layer in enumerate(found.layers):
            rows.append([name, layer, *_angles(found, net, layer), *_of_weights(found, net, i)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{entry:{width}}" for entry, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _angles(found: Diagnosis, net: Trained, layer: str) -> list[str]:
    """Return expected and measured gradient alignment of a layer; the readout has none."""
    if layer not in found.points:
        return ["–"] * 4
    i = found.points.index(layer)
    expected = found.expected["conditioned" if net.conditioned else "plain"]
    measured = net.gradient_alignment[-1, i] if len(net.steps) else np.nan
    values = (expected.gradient_alignment[i], mean(expected.by_output[i]), measured, mean(net.by_output[i]))
    return [_number(value, "+.2f") for value in values]


def _of_weights(found: Diagnosis, net: Trained, i: int) -> list[str]:
    return [
        _number(net.norm_ratio[i], ".2g"),
        _number(net.weight_alignment[i], "+.2f"),
        _number(found.alignability[i], ".2f"),
        _number(net.condition_number[i], ".3g"),
        _number(net.residual[i], ".2f"),
    ]


def _number(value: float, form: str) -> str:
    return "–" if np.isnan(value) else format(float(value), form)


def mean(values: Array) -> float:
    """Return the mean of what is known; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _dashes(found: Diagnosis) -> list[str]:
    """Say why layers have no number for their weights."""
    reasons = {
        layer: why
        for net in found.trained.values()
        for layer, why in zip(found.layers, net.undefined, strict=True)
        if why
    }
    return [f"Layer {layer} has dashes, because {why}." for layer, why in reasons.items()]


def answer(found: Diagnosis) -> list[str]:
    """Return the answer, a sentence or two a line: aligned or not, why, which rule, what limits the layers."""
    lines = [line for name, net in found.trained.items() for line in _measured(found, name, net)]
    return [*lines, _why(found), _theory(found), found.advice, *_limited(found)]


def _measured(found: Diagnosis, name: str, net: Trained) -> list[str]:
    """Say how a net did."""
    if net.diverged_at is not None:
        return [f"{name} DIVERGED after {net.diverged_at} steps{_grown(net)}. Lower the learning rate."]
    angle = mean(net.by_output)
    if np.isnan(angle):
        return [f"{name}: gradient alignment is not defined on this probe; all gradients are zero."]
    word = "aligns" if angle > ALIGNED else "hardly aligns" if angle < POOR else "aligns a little"
    of_outputs = _worst("output", [str(output) for output in range(net.by_output.shape[1])], net.by_output.T)
    of_layers = _worst("layer", found.points, net.by_output)
    return [
        f"{name} {word}: gradient alignment {angle:.2f} after {found.steps} steps, mean over layers and outputs."
        f"{of_layers}{of_outputs} The loss went from {net.losses[0]:.3g} to {net.losses[-1]:.3g}."
    ]


def _worst(kind: str, names: Sequence[str], angles: Array) -> str:
    """Name the output or layer with the smallest mean, given angles [names, ...]; nothing where there is only one."""
    if len(names) == 1:
        return ""
    means = np.array([mean(each) for each in angles])
    worst = int(np.nanargmin(means))
    return f" The worst {kind} is {names[worst]} ({means[worst]:.2f})."


def _grown(net: Trained) -> str:
    last = net.losses[-1]
    return (
        f": the loss went from {net.losses[0]:.3g} to {last:.3g}" if np.isfinite(last) else ": the loss is not finite"
    )


def _why(found: Diagnosis) -> str:
    """Say whether the outputs stand in the way."""
    condition = found.errors.spectrum.condition_number
    outputs = list(dict.fromkeys(str(each) for direction in found.errors.directions for each in direction.outputs))
    if not outputs:
        return f"No output stands out in the errors: their condition number is {condition:.3g}."
    which = f"Output {outputs[0]} stands" if len(outputs) == 1 else f"Outputs {', '.join(outputs)} stand"
    return f"{which} out in the errors: their condition number is {condition:.3g}, and 1 is perfect."


def _theory(found: Diagnosis) -> str:
    """Say what theory expects of plain and of conditioned feedback."""
    plain, conditioned = found.expected["plain"], found.expected["conditioned"]
    start = (
        f"In a deep linear network theory expects a gradient alignment of {mean(plain.by_output):.2f} in the first "
        "steps of DFA."
    )
    if np.isinf(plain.steps) and np.isinf(conditioned.steps):
        return f"{start} With white inputs such a network would hardly learn these outputs, with either rule."
    if plain.steps < WORTH * conditioned.steps:
        return start
    over = "over " if np.isinf(plain.steps) else ""
    times = min(plain.steps, MOST_STEPS) / conditioned.steps
    return f"{start} If its inputs were white too, DFA would need {over}{times:.1f} times the steps of ConditionedDFA."


def _limited(found: Diagnosis) -> list[str]:
    """Name the layers whose weights can hardly align, and what would help."""
    lines = []
    for layer, bound, channelwise in zip(found.layers, found.alignability, found.alignability_channelwise, strict=True):
        if bound < LIMITED:
            better = f", with channelwise feedback {channelwise:.2f}" if channelwise > bound else ""
            lines.append(
                f"Layer {layer} has few or shared weights. Its weight alignment can be at most {bound:.2f}{better}, "
                "however long it is trained."
            )
    if lines:
        lines.append(
            "Other feedback has other limits: feedalign.feedback.Smooth, or learned feedback, "
            "feedalign.DirectKolenPollack. Diagnose the model with them to see whether they help."
        )
    return lines
