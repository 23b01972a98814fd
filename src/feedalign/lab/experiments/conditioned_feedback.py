r"""Conditioned feedback: badly conditioned outputs learned as fast as well conditioned ones.

Claim: outputs that are correlated or differ in size make the alignment matrices badly conditioned, and DFA slow. Hidden
layers that are sent F_l P e with P = (Σ_yx Σ_xy)^(−½), while the readout keeps e, learn in as many steps as if the
outputs were white, and what they are sent agrees better with backprop.

Setting: deep linear networks, full-batch descent on the population: isotropic inputs, a linear teacher whose two
outputs have covariance [[1, α(1−β)], [α(1−β), α²]]. DFA starts from zero weights; backprop, which would not move from
there, from small random ones. Conditioning the error is preconditioning too, so backprop with the same conditioned
error is the control: what DFA gains beyond it is alignment's.

Source: of the grid Refinetti et al. (2021), section 3; conditioned feedback follows from its theory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import sqrtm

from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.style import RULE_COLOURS, figure_style, letter
from feedalign.theory import linear

Array = NDArray[np.float64]

NAME = "conditioned-feedback"
CLAIM = (
    "Feedback that is conditioned by the inverse root of the input-output covariance lets direct feedback alignment "
    "learn correlated and unequal outputs in as many steps as white ones."
)
RULES = ("dfa", "bp")
WHITE = (1.0, 1.0)


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        outputs: pairs (α, β); (1, 1), white outputs, first.
        kinds: of feedback; orthonormal columns and Gaussian ones, orthogonal up to 1/√width only.
        inputs: n_0.
        width: of the hidden layers.
        hidden: how many there are.
        lr: η.
        bp_scale: of backprop's initial weights, in units of 1/√fan_in.
        steps: at most.
        draws: independent teachers, feedback matrices and initial weights.
        first_seed: of the draws.
    """

    outputs: tuple[tuple[float, float], ...] = (WHITE, (0.5, 1.0), (0.2, 1.0), (1.0, 0.2), (0.2, 0.2))
    kinds: tuple[Literal["gaussian", "orthonormal"], ...] = ("gaussian", "orthonormal")
    inputs: int = 10
    width: int = 100
    hidden: int = 3
    lr: float = 0.02
    bp_scale: float = 0.3
    steps: int = 1500
    draws: int = 5
    first_seed: int = 0


CONFIGS = {"quick": Config(), "paper": Config(draws=30, width=300, inputs=50)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


def covariance(alpha: float, beta: float) -> Array:
    """Return the covariance of the two outputs, [2, 2]."""
    return np.array([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Train every draw of every pair (α, β), plain and conditioned, under both rules."""
    cells, kinds = config.outputs, config.kinds
    shape = (len(RULES), 2, len(kinds), len(cells), config.draws)
    steps, alignment = np.full(shape, np.nan), np.full((*shape[1:], config.hidden), np.nan)
    done, total = 0, len(cells) * config.draws
    for i, (alpha, beta) in enumerate(cells):
        for draw in range(config.draws):
            rng = np.random.default_rng([config.first_seed, draw])
            basis = np.linalg.qr(rng.standard_normal((config.inputs, 2)))[0]
            teacher = np.real(sqrtm(covariance(alpha, beta))) @ basis.T
            probe = rng.standard_normal((500, config.inputs))
            sizes = [config.inputs, *[config.width] * config.hidden, 2]
            weights = [
                config.bp_scale / np.sqrt(sizes[l]) * rng.standard_normal((sizes[l + 1], sizes[l]))
                for l in range(len(sizes) - 1)
            ]
            for c, P in enumerate((None, linear.conditioner(teacher))):
                losses = _backprop(weights, teacher, config.lr, config.steps, P)
                steps[1, c, :, i, draw] = _steps_to(0.01, losses)
                for k, kind in enumerate(kinds):
                    F = linear.draw_feedback([config.width] * config.hidden, 2, np.random.default_rng([draw, k]), kind)
                    found = linear.population(
                        np.eye(config.inputs), teacher, feedback=F, lr=config.lr, steps=config.steps, conditioning=P,
                        record=range(5, config.steps + 1, 5),
                    )  # fmt: skip
                    steps[0, c, k, i, draw] = _steps_to(0.01, found.losses)
                    alignment[c, k, i, draw] = np.mean(
                        [
                            state.gradient_alignment(probe, probe @ teacher.T)
                            for step, state in zip(found.recorded, found.states, strict=True)
                            if not step > steps[0, c, k, i, draw]
                        ],
                        axis=0,
                    )
            done += 1
            progress(done, total)
    dims = ("conditioned", "kind", "outputs", "draw")
    return xr.Dataset(
        {
            "steps": (("rule", *dims), steps, {"long_name": "steps until the loss is 1 % of its start"}),
            "gradient_alignment": ((*dims, "layer"), alignment, {"long_name": "of what DFA sends, mean until then"}),
        },
        coords={
            "rule": list(RULES),
            "conditioned": [False, True],
            "kind": list(kinds),
            "alpha": ("outputs", [alpha for alpha, _ in cells]),
            "beta": ("outputs", [beta for _, beta in cells]),
            "layer": np.arange(1, config.hidden + 1),
        },
    )


def _steps_to(share: float, losses: Array) -> float:
    below = losses < share * losses[0]
    return float(np.argmax(below)) if below.any() else np.nan


def _backprop(weights: list[Array], teacher: Array, lr: float, steps: int, P: Array | None) -> Array:
    """Return the losses of backprop on the population of isotropic inputs; with P, hidden layers learn from P e."""
    weights = [W.copy() for W in weights]
    losses = np.empty(steps + 1)
    for step in range(steps + 1):
        below = [np.eye(teacher.shape[1])]
        for W in weights:
            below.append(W @ below[-1])
        error = below[-1] - teacher
        losses[step] = np.square(error).sum() / 2
        back = error if P is None else P @ error
        gradients = [error @ below[-2].T]
        for l in range(len(weights) - 2, -1, -1):
            back = weights[l + 1].T @ back
            gradients.insert(0, back @ below[l].T)
        for W, gradient in zip(weights, gradients, strict=True):
            W -= lr * gradient
    return losses


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold steps and alignment against the claim, the worst pair (α, β) and kind of feedback deciding."""
    white = (dataset.alpha == WHITE[0]) & (dataset.beta == WHITE[1])
    draws = dataset.sizes["draw"]
    bad = dataset.sel(outputs=~white & ((dataset.alpha <= 0.2) | (dataset.beta <= 0.2)))
    reference = dataset.steps.sel(outputs=white, rule="dfa", conditioned=False).squeeze("outputs")
    ratio = {kind: bad.steps.sel(rule="dfa", conditioned=kind) / reference for kind in (False, True)}
    where = f"{bad.sizes['outputs']} pairs (α, β) × {dataset.sizes['kind']} kinds of feedback × {draws} draws"
    raised = bad.gradient_alignment.sel(kind="gaussian").mean(("outputs", "layer"), skipna=False)
    raised = raised.sel(conditioned=True) - raised.sel(conditioned=False)
    gain = np.log(bad.steps.sel(conditioned=False) / bad.steps.sel(conditioned=True))
    beyond = (gain.sel(rule="dfa") - gain.sel(rule="bp")).mean(("outputs", "kind"), skipna=False)
    t = float(stats.t.isf(0.05, draws - 1))
    return [
        Verdict(
            claim="conditioned DFA learns ill-conditioned outputs in at most 1.2 times the steps that white ones need "
            "(largest ratio)",
            effect=float(ratio[True].max(skipna=False)),
            spread=float(ratio[True].std(skipna=False)),
            threshold=1.2,
            side="below",
            sample=f"{where}; spread: standard deviation",
        ),
        Verdict(
            claim="plain DFA needs more than that (smallest ratio)",
            effect=float(ratio[False].min(skipna=False)),
            spread=float(ratio[False].std(skipna=False)),
            threshold=1.2,
            side="above",
            sample=f"{where}; spread: standard deviation",
        ),
        Verdict(
            claim="Gaussian feedback: what is sent agrees better with backprop when conditioned (difference of mean "
            "gradient alignment)",
            effect=float(raised.mean(skipna=False)),
            spread=float(raised.std(ddof=1, skipna=False) / np.sqrt(draws)),
            threshold=0.0,
            side="above",
            sample=f"{draws} draws, mean over {bad.sizes['outputs']} pairs and all layers; spread: standard error over "
            "draws, one-sided 95 % (t)",
            margin=t,
        ),
        Verdict(
            claim="DFA gains more than backprop gains from the same conditioned error: log of the ratio of speed-ups",
            effect=float(beyond.mean(skipna=False)),
            spread=float(beyond.std(ddof=1, skipna=False) / np.sqrt(draws)),
            threshold=0.0,
            side="above",
            sample=f"{draws} draws, mean over pairs and kinds; spread: standard error over draws, one-sided 95 % (t)",
            margin=t,
        ),
    ]


def plot(dataset: xr.Dataset) -> Figure:
    """Draw steps and gradient alignment of every pair (α, β), plain and conditioned."""
    with figure_style():
        figure = Figure(figsize=(7.6, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        styles = [
            ("dfa", False, "o", "white", "DFA, plain"),
            ("dfa", True, "o", RULE_COLOURS["dfa"], "DFA, conditioned"),
            ("bp", False, "s", "white", "backprop, plain"),
            ("bp", True, "s", RULE_COLOURS["bp"], "backprop, conditioned"),
        ]
        for rule, conditioned, marker, face, label in styles:
            steps = dataset.steps.sel(rule=rule, conditioned=conditioned, kind="gaussian").transpose("outputs", "draw")
            _points(left, steps, marker, RULE_COLOURS[rule], face, label, 0.12 * (rule == "bp"))
        left.set(yscale="log", ylabel="steps to 1 % of the loss", ylim=(70, 2500), yticks=[100, 200, 500, 1000])
        left.yaxis.set_major_formatter(ScalarFormatter())
        left.yaxis.set_minor_formatter(NullFormatter())
        left.legend(loc="upper left", fontsize=7, ncols=2)
        letter(left, "a", "Gaussian feedback")
        for kind, colour, shift in (("gaussian", RULE_COLOURS["dfa"], 0.0), ("orthonormal", "0.35", 0.15)):
            for conditioned, face, word in ((False, "white", "plain"), (True, colour, "conditioned")):
                mean = dataset.gradient_alignment.sel(kind=kind, conditioned=conditioned).mean("layer")
                _points(right, mean.transpose("outputs", "draw"), "o", colour, face, f"{kind}, {word}", shift)
        right.set(ylabel="gradient alignment, mean over layers", ylim=(0, 1.05))
        right.legend(loc="lower left", fontsize=7)
        letter(right, "b", "what DFA sends")
        for axes in (left, right):
            axes.set_xticks(range(dataset.sizes["outputs"]))
            axes.set_xticklabels([f"{float(cell.alpha):g}, {float(cell.beta):g}" for cell in dataset.outputs])
            axes.set_xlabel("size α and independence β of the outputs")
    return figure


def _points(axes: Axes, values: xr.DataArray, marker: str, colour: str, face: str, label: str, shift: float) -> None:
    """Draw mean and range over draws of values [outputs, draw]."""
    mean = values.mean("draw").values
    reach = np.abs(np.stack([values.min("draw"), values.max("draw")]) - mean)
    axes.errorbar(
        np.arange(len(mean)) + shift,
        mean,
        reach,
        fmt=marker,
        ms=4,
        lw=1,
        color=colour,
        markerfacecolor=face,
        label=label,
    )


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows and over how many runs."""
    return (
        f"Deep linear networks with {dataset.sizes['layer']} hidden layers, two outputs of covariance [[1, α(1−β)], "
        "[α(1−β), α²]]. (a) Steps until the loss is 1 % of its start. (b) Cosine of what hidden layers are sent under "
        f"DFA with backprop's signal, mean over training until then. Points: mean of {dataset.sizes['draw']} draws; "
        "bars: their range."
    )
