"""A diagnosis as text: what was seen before training, a table, and the answer in short sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from feedalign.checks import Array
from feedalign.diagnosis.expectation import MOST_STEPS, Direction, Moment, mean_of_known
from feedalign.diagnosis.training import Trained

if TYPE_CHECKING:
    from feedalign.diagnosis.result import Diagnosis

# Below this alignability a layer is named: its shape, not its training, keeps its weights from aligning with the
# feedback. Its gradients can align all the same.
LIMITED = 0.5
# A mean gradient alignment above this one is called good, below the other one poor. The update of a layer then has
# more than 0.3, or less than 0.1, of its length along the true gradient; chance is 0.
ALIGNED, POOR = 0.3, 0.1
# The times of steps from which on theory's estimate is told: the factor within which white outputs are learned too.
WORTH = 1.2
# Between these two ConditionedDFA gained nothing: learning times of two seeds of one rule differ as much.
FASTER, SLOWER = 1.1, 1 / 1.1
# Errors with a condition number below this one are well conditioned: P is then close to the identity.
WELL_CONDITIONED = 2.0
# Outputs that a direction is made of are named up to this number, the largest first.
MOST_NAMED = 10

# Heading and format of each number of the table.
COLUMNS = (
    ("expected", "+.2f"), ("(even)", "+.2f"), ("measured", "+.2f"), ("(even)", "+.2f"), ("norm ratio", ".2g"),
    ("weights", "+.2f"), ("at most", ".2f"), ("cond(Â)", ".3g"), ("residual", ".2f"),
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
    isotropic = " (inputs taken for isotropic)" if found.isotropic else ""
    answer = [*(_measured(found, *each) for each in found.trained.items()), _why(found), _theory(found), advice(found)]
    return "\n".join(
        [
            f"Diagnosis of {found.name}.",
            "",
            f"Before training, {found.samples} samples:",
            *_of_moment("errors, E[e eᵀ]", found.errors),
            *_of_moment(f"inputs and outputs, Σ_yx Σ_xy{isotropic}", found.input_output),
            "",
            *_table(found),
            "",
            *NOTES,
            *_dashes(found),
            "",
            "Answer:",
            *(f"  {line}" for line in (*answer, *_limited(found))),
        ]
    )


def _of_moment(label: str, moment: Moment) -> list[str]:
    spectrum = moment.spectrum
    return [
        f"  {label}: condition number {spectrum.condition_number:.3g}, effective rank {spectrum.effective_rank:.1f} of "
        f"{spectrum.rank}",
        *(f"    {_named(direction)}" for direction in moment.directions),
    ]


def _named(direction: Direction) -> str:
    """Say which outputs make up a direction."""
    outputs = _listed(direction.outputs)
    where, size, represented = (
        ("largest (learned first)", f"{direction.factor:.3g} times", "over")
        if direction.factor > 1
        else ("smallest (learned last)", f"1/{1 / direction.factor:.3g} of", "under")
    )
    what = f"outputs {outputs} together"
    if not np.isnan(direction.correlation):
        what = f"outputs {outputs} are correlated ({direction.correlation:+.2f})"
    elif len(direction.outputs) == 1:
        variance = f"{direction.excess:.3g} times the variance of the median output"
        what = f"output {outputs} is {represented}-represented, with {variance}"
    return f"{where}, {size} the typical direction: {what}"


def _listed(outputs: Sequence[object]) -> str:
    """Return the first outputs and how many more there are."""
    more = len(outputs) - MOST_NAMED
    return ", ".join(map(str, outputs[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _table(found: Diagnosis) -> list[str]:
    """Return the heading and a row for each layer of each net, in columns."""
    rows = [["rule", "layer", *(heading for heading, _ in COLUMNS)]]
    for name, net in found.trained.items():
        for layer, numbers in zip(found.layers, _numbers(found, net), strict=True):
            entries = [
                "–" if np.isnan(n) else format(float(n), form) for n, (_, form) in zip(numbers, COLUMNS, strict=True)
            ]
            rows.append([name, layer, *entries])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{entry:{width}}" for entry, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _numbers(found: Diagnosis, net: Trained) -> Array:
    """Return the numbers of the table, [layers, columns]; the readout has no gradient alignment."""
    expected = found.expected["conditioned" if net.conditioned else "plain"]
    at_points = [expected.gradient_alignment, mean_of_known(expected.by_output)]
    at_points += [net.gradient_alignment[-1], mean_of_known(net.by_output)]
    angles = np.full((4, len(found.layers)), np.nan)
    angles[:, [found.layers.index(point) for point in found.points]] = at_points
    of_weights = [net.norm_ratio, net.weight_alignment, found.alignability, net.condition_number, net.residual]
    return np.column_stack([*angles, *of_weights])


def _dashes(found: Diagnosis) -> list[str]:
    """Say why layers have no number for their weights."""
    pairs = (zip(found.layers, net.undefined, strict=True) for net in found.trained.values())
    reasons = {layer: why for of_net in pairs for layer, why in of_net if why}
    return [f"Layer {layer} has dashes, because {why}." for layer, why in reasons.items()]


def _measured(found: Diagnosis, name: str, net: Trained) -> str:
    before, after = net.losses[[0, -1]]
    losses = f"loss went from {before:.3g} to {after:.3g}"
    if net.diverged_at is not None:
        how = losses if np.isfinite(after) else "loss or the weights are not finite"
        return f"{name} DIVERGED after {net.diverged_at} steps: the {how}. Lower the learning rate."
    angle = _mean(net.by_output)
    if np.isnan(angle):
        return f"{name}: gradient alignment is not defined on this probe; all gradients are zero."
    word = "aligns" if angle > ALIGNED else "hardly aligns" if angle < POOR else "aligns a little"
    of_layers = _worst("layer", found.points, mean_of_known(net.by_output))
    of_outputs = _worst("output", range(net.by_output.shape[1]), mean_of_known(net.by_output.T))
    return (
        f"{name} {word}: gradient alignment {angle:.2f} after {found.steps} steps, mean over layers and outputs."
        f"{of_layers}{of_outputs} The {losses}."
    )


def _mean(values: Array) -> float:
    return float(mean_of_known(values.ravel()))


def _worst(kind: str, names: Sequence[object], angles: Array) -> str:
    """Name the output or layer with the smallest angle; nothing where there is only one."""
    worst = int(np.nanargmin(angles))
    return f" The worst {kind} is {names[worst]} ({angles[worst]:.2f})." if len(names) > 1 else ""


def _why(found: Diagnosis) -> str:
    """Say whether the outputs stand in the way."""
    condition = found.errors.spectrum.condition_number
    outputs = list(dict.fromkeys(str(each) for direction in found.errors.directions for each in direction.outputs))
    if not outputs:
        return f"No output stands out in the errors: their condition number is {condition:.3g}."
    which = f"Output {outputs[0]} stands" if len(outputs) == 1 else f"Outputs {_listed(outputs)} stand"
    return f"{which} out in the errors: their condition number is {condition:.3g}, and 1 is perfect."


def _theory(found: Diagnosis) -> str:
    """Say what theory expects of plain and of conditioned feedback."""
    plain, conditioned = found.expected["plain"], found.expected["conditioned"]
    start = (
        f"In a deep linear network theory expects a gradient alignment of {_mean(plain.by_output):.2f} in the first "
        "steps of DFA."
    )
    if np.isnan(plain.steps):
        return f"{start} The steps of DFA and ConditionedDFA were not estimated: there are too many outputs."
    if np.isinf(plain.steps) and np.isinf(conditioned.steps):
        return f"{start} With white inputs such a network would hardly learn these outputs, with either rule."
    if plain.steps < WORTH * conditioned.steps:
        return start
    over = "over " if np.isinf(plain.steps) else ""
    times = min(plain.steps, MOST_STEPS) / conditioned.steps
    return f"{start} If its inputs were white too, DFA would need {over}{times:.1f} times the steps of ConditionedDFA."


def advice(found: Diagnosis) -> str:
    """Say whether to use ConditionedDFA: as measured where both rules were trained, from the errors where not."""
    times, condition = found.speedup, found.errors.spectrum.condition_number
    if times > FASTER:
        return f"ConditionedDFA was {times:.1f} times faster here. Use it."
    if times < SLOWER:
        return f"ConditionedDFA was {1 / times:.1f} times slower here. Use plain DFA."
    if not np.isnan(times):
        return f"ConditionedDFA gained nothing here ({times:.2f} times as fast). Plain DFA will do."
    if found.diverged and len(found.trained) > 1:
        return "No advice on ConditionedDFA: a network diverged, so the two rules cannot be compared."
    if any(each.conditioned for each in found.trained.values()):
        return "ConditionedDFA was not compared with DFA. To compare them, diagnose the bare model."
    if condition < WELL_CONDITIONED:
        return (
            f"ConditionedDFA will change little: the errors are well conditioned ({condition:.3g}, below "
            f"{WELL_CONDITIONED:g})."
        )
    return (
        f"ConditionedDFA may help or harm: the errors are badly conditioned ({condition:.3g}, above "
        f"{WELL_CONDITIONED:g}). Measure it with compare=True, on the command line --compare."
    )


def _limited(found: Diagnosis) -> Iterator[str]:
    """Name the layers whose weights can hardly align, and what would help."""
    for layer, bound, channelwise in zip(found.layers, found.alignability, found.alignability_channelwise, strict=True):
        if bound < LIMITED:
            better = f", with channelwise feedback {channelwise:.2f}" if channelwise > bound else ""
            yield (
                f"Layer {layer} has few or shared weights. Its weight alignment can be at most {bound:.2f}{better}, "
                "however long it is trained."
            )
    if (found.alignability < LIMITED).any():
        yield (
            "Other feedback has other limits: feedalign.feedback.Smooth, or learned feedback, "
            "feedalign.DirectKolenPollack. Diagnose the model with them to see whether they help."
        )
