r"""Conditioned feedback: badly conditioned outputs are learned as fast as well conditioned ones.

Hidden layers are sent F_l P e with P = (Σ_yx Σ_xy)^(−½), while the readout keeps e.

Setting: deep linear networks, full-batch descent on the population: isotropic inputs, and a linear teacher whose two
outputs have covariance [[1, α(1−β)], [α(1−β), α²]]. DFA starts from zero weights. Backprop, which would not move from
zero, starts from small random weights. Conditioning the error is also a form of preconditioning. The control is
therefore backprop with the same conditioned error: preconditioning alone does not explain what DFA gains beyond that.

Source: of the grid Refinetti et al. (2021), section 3; conditioned feedback follows from its theory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import in_turn, jobs_on_grid, on_grid
from feedalign.lab.experiments.common.linear_backprop import backprop_losses
from feedalign.lab.experiments.common.output_pairs import covariance_root, with_pairs
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.panels import panels
from feedalign.lab.runs import Desk, Job
from feedalign.streams import numpy_generator
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style, mean_and_range
from feedalign.theory import linear

Array = NDArray[np.float64]

NAME = "conditioned-feedback"
CLAIM = CLAIMS[NAME]
RULES = ("dfa", "backprop")
WHITE = (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all draws have in common.

    Attributes:
        outputs: pairs (α, β); the first is (1, 1), white outputs.
        kinds: kinds of feedback. Columns of "gaussian" feedback are orthogonal only up to 1/√width.
        inputs: n_0, number of inputs.
        width: width of the hidden layers.
        hidden: number of hidden layers.
        lr: η.
        backprop_scale: scale of backprop's initial weights, in units of 1/√fan_in.
        steps: largest number of steps.
        first_seed: seed from which every draw gets its own.
    """

    outputs: tuple[tuple[float, float], ...] = (WHITE, (0.5, 1.0), (0.2, 1.0), (1.0, 0.2), (0.2, 0.2))
    kinds: tuple[Literal["gaussian", "orthonormal"], ...] = ("gaussian", "orthonormal")
    inputs: int = 10
    width: int = 100
    hidden: int = 3
    lr: float = 0.02
    backprop_scale: float = 0.3
    steps: int = 1500
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, the number of draws.

    Attributes:
        draws: independent teachers, feedback matrices and initial weights.
    """

    draws: int = 5


CONFIGS = {"quick": Config(), "paper": Config(draws=30, width=300, inputs=50)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


@dataclass(frozen=True, kw_only=True)
class Trainings(Setting, Job):
    """One draw: backprop and DFA through every kind of feedback, plain and conditioned, on every pair (α, β).

    Attributes:
        draw: number of the draw.
    """

    kind = f"{NAME}-trainings"
    draw: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Train, and store how many steps each network needs, and how well the signals agree with backprop."""
        found = [self._trained(output) for output in in_turn(desk, self.outputs)]
        return xr.concat(found, "outputs").assign_coords(
            rule=list(RULES), conditioned=[False, True], kind=list(self.kinds), layer=np.arange(1, self.hidden + 1)
        )

    def _trained(self, output: tuple[float, float]) -> xr.Dataset:
        rng = numpy_generator(self.first_seed, "teacher", self.draw)
        basis = np.linalg.qr(rng.standard_normal((self.inputs, 2)))[0]
        teacher = covariance_root(*output) @ basis.T
        probe = rng.standard_normal((500, self.inputs))
        sizes = [self.inputs, *[self.width] * self.hidden, 2]
        weights = [
            self.backprop_scale / np.sqrt(sizes[l]) * rng.standard_normal((sizes[l + 1], sizes[l]))
            for l in range(len(sizes) - 1)
        ]
        steps = np.full((len(RULES), 2, len(self.kinds)), np.nan)
        alignment = np.full((2, len(self.kinds), self.hidden), np.nan)
        for c, P in enumerate((None, linear.conditioner(teacher))):
            steps[1, c] = _steps_to(0.01, backprop_losses(weights, teacher, self.lr, self.steps, P))
            for k, kind in enumerate(self.kinds):
                of_feedback = numpy_generator(self.first_seed, "feedback", self.draw, kind)
                F = linear.draw_feedback([self.width] * self.hidden, 2, of_feedback, kind)
                found = linear.population(
                    np.eye(self.inputs), teacher, feedback=F, lr=self.lr, steps=self.steps, conditioning=P,
                    record=range(5, self.steps + 1, 5),
                )  # fmt: skip
                steps[0, c, k] = _steps_to(0.01, found.losses)
                under_way = [
                    state.gradient_alignment(probe, probe @ teacher.T)
                    for step, state in zip(found.recorded, found.states, strict=True)
                    if not step > steps[0, c, k]  # all of them if the loss never falls so far
                ]
                alignment[c, k] = np.mean(under_way, axis=0)
        return xr.Dataset(
            {
                "steps": (("rule", "conditioned", "kind"), steps),
                "gradient_alignment": (("conditioned", "kind", "layer"), alignment),
            }
        )


def _steps_to(share: float, losses: Array) -> float:
    """Return the first step at which the loss is below this share of its start; NaN if there is none."""
    below = losses < share * losses[0]
    return float(np.argmax(below)) if below.any() else np.nan


def jobs(config: Config) -> list[Trainings]:
    """Return a job for every draw."""
    return jobs_on_grid(Trainings, config, draw=range(config.draws))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the draws side by side."""
    dataset = on_grid(results, draw=config.draws).transpose("rule", "conditioned", "kind", "outputs", "draw", "layer")
    dataset.steps.attrs.update(long_name="steps until the loss is 1 % of its start", units="steps")
    dataset.gradient_alignment.attrs["long_name"] = "of the signals that DFA sends, mean until then"
    return with_pairs(dataset, config.outputs)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the numbers of steps and what conditioning does to the signals; the weakest pair (α, β) and kind decide."""
    white = (dataset.alpha == WHITE[0]) & (dataset.beta == WHITE[1])
    bad = dataset.sel(outputs=~white & ((dataset.alpha <= 0.2) | (dataset.beta <= 0.2)))
    reference = dataset.steps.sel(outputs=white, rule="dfa", conditioned=False, drop=True).squeeze("outputs", drop=True)
    ratio = bad.steps.sel(rule="dfa") / reference
    raised = bad.gradient_alignment.sel(kind="gaussian").mean(("outputs", "layer"), skipna=False)
    gain = np.log(bad.steps.sel(conditioned=False) / bad.steps.sel(conditioned=True))
    gain = gain.mean(("outputs", "kind"), skipna=False)
    draw = "a draw of teacher, feedback and initial weights"
    return [
        *verdicts_on("a draw of teacher and feedback", {
            "conditioned DFA learns ill-conditioned outputs in at most 1.2 times the steps that plain DFA needs for "
            "white ones (mean ratio, weakest pair (α, β) and kind of feedback)":
                (_cells(ratio.sel(conditioned=True)), "below", 1.2),
            "plain DFA needs more than 1.2 times these steps (mean ratio, weakest)":
                (_cells(ratio.sel(conditioned=False)), "above", 1.2),
        }),
        Verdict.of_difference(
            "Gaussian feedback: the signals agree better with backprop when conditioned (difference of mean gradient "
            "alignment)",
            raised.sel(conditioned=True), raised.sel(conditioned=False),
            sample=f"{draw}; mean over {bad.sizes['outputs']} pairs and all layers",
        ),
        Verdict.of_difference(
            "DFA gains more than backprop gains from the same conditioned error: log of the ratio of speed-ups",
            gain.sel(rule="dfa"), gain.sel(rule="backprop"),
            sample=f"{draw}; mean over {bad.sizes['outputs']} pairs and {bad.sizes['kind']} kinds of feedback",
        ),
    ]  # fmt: skip


def _cells(ratio: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return ratios of every pair (α, β) and kind of feedback, [draw], by name."""
    return {
        f"(α, β) = ({float(cell.alpha):g}, {float(cell.beta):g}), {kind} feedback": cell.sel(kind=kind)
        for kind in ratio.kind.values
        for cell in ratio.transpose("outputs", ...)
    }


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw steps and gradient alignment of every pair (α, β), plain and conditioned."""
    places = np.arange(dataset.sizes["outputs"])
    figure, (left, right) = panels(7.6, 2.9, ("Gaussian feedback", "what DFA sends"))
    for rule, marker, shift in (("dfa", "o", 0.0), ("backprop", "s", 0.12)):
        steps = dataset.steps.sel(rule=rule, kind="gaussian")
        _draw_both(left, places + shift, steps, RULE_LABELS[rule], RULE_COLOURS[rule], marker)
    left.set(yscale="log", ylabel="steps to 1 % of the loss", ylim=(70, 2500), yticks=[100, 200, 500, 1000])
    left.yaxis.set_major_formatter(ScalarFormatter())
    left.yaxis.set_minor_formatter(NullFormatter())
    left.legend(loc="upper left", fontsize=7, ncols=2)
    for kind, colour, shift in (("gaussian", RULE_COLOURS["dfa"], 0.0), ("orthonormal", "0.35", 0.15)):
        alignment = dataset.gradient_alignment.sel(kind=kind).mean("layer")
        _draw_both(right, places + shift, alignment, "Gaussian" if kind == "gaussian" else kind, colour, "o")
    right.set(ylabel="gradient alignment, mean over layers", ylim=(0, 1.05))
    right.legend(loc="lower left", fontsize=7)
    for axes in (left, right):
        axes.set_xticks(places)
        axes.set_xticklabels([f"{float(cell.alpha):g}, {float(cell.beta):g}" for cell in dataset.outputs])
        axes.set_xlabel("size α and independence β of the outputs")
    return figure


def _draw_both(axes: Axes, places: NDArray[Any], values: xr.DataArray, name: str, colour: str, marker: str) -> None:
    """Draw values [conditioned, draw, outputs]: plain feedback as open points, conditioned feedback as filled ones."""
    for conditioned, face, word in ((False, "white", "plain"), (True, colour, "conditioned")):
        samples = values.sel(conditioned=conditioned).transpose("draw", "outputs").values
        mean_and_range(
            axes, places, samples, color=colour, marker=marker, markerfacecolor=face, label=f"{name}, {word}"
        )


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        f"Deep linear networks with {dataset.sizes['layer']} hidden layers, two outputs of covariance [[1, α(1−β)], "
        "[α(1−β), α²]]. (a) Steps until the loss is 1 % of its start. (b) Cosine of the signal that a hidden layer is "
        "sent under DFA with backprop's signal, mean over training until then. Points: mean of "
        f"{dataset.sizes['draw']} draws; bars: their range."
    )
