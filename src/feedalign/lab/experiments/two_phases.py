r"""Align, then memorise: the two phases of DFA in a shallow network.

Claim: from small weights the readout v first turns to the feedback F: cos(v, F) rises to 1 while the generalisation
error has hardly moved. Then the student learns its teacher, and the cosine sinks to the value that the teacher allows.
The order-parameter equations describe both phases. With the opposite feedback, −F, an erf student ends at the minimum
with all signs reversed. A ReLU student has no such minimum and does not learn.

Setting: K = M = 2 erf or ReLU units. The teacher's readout is (1, 1); first layers and feedback are Gaussian; for ReLU
the feedback is positive. Equal teacher weights make the second phase visible for nearly every F: the cosine of an erf
solution is Σ|F_k| / (√K |F|), which is one only where all |F_k| are equal.

Source: Refinetti et al. (2021), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from feedalign import streams
from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.progress import Progress
from feedalign.lab.experiments.common.shallow_runs import log_times, phases
from feedalign.lab.experiments.common.statistics import bonferroni, mean_verdict
from feedalign.lab.experiments.common.verdict import Verdict
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style, letter
from feedalign.theory import shallow

NAME = "two-phases"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        input_dim: N of the simulation.
        hidden: K = M.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        end_time: of theory and simulation, in steps / N.
        late_time: end of the longer integration that follows the readout to its solution, under F and −F.
        measurements: number of measured times after time 0, evenly spaced in log time.
        draws: independent teachers, starts and feedback vectors.
        seeds: simulated runs per draw and rule.
        first_seed: seed from which every draw gets its own.
    """

    input_dim: int = 500
    hidden: int = 2
    lr: float = 0.1
    weight_scale: float = 0.01
    end_time: float = 1000.0
    late_time: float = 30_000.0
    measurements: int = 40
    draws: int = 8
    seeds: int = 20
    first_seed: int = 0


CONFIGS = {"quick": Config(), "paper": Config(end_time=2000.0, late_time=300_000.0, measurements=60, draws=40)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian
ACTIVATIONS = ("erf", "relu")
RULES = ("dfa", "backprop")
QUANTITIES = ("generalisation_error", "overlap")
SIGNS = (1, -1)
SOLVED = 1e-5  # at this ε_g the readout is within a per cent of its minimum


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Integrate and simulate every draw under both rules."""
    units = {"units": "steps / input dimension"}
    times = log_times(config.end_time, config.measurements, config.input_dim)
    late_times = np.concatenate([[0.0], np.geomspace(0.1, config.late_time, 2 * config.measurements)])
    by_activation = []
    for a, activation in enumerate(ACTIVATIONS):
        draws = []
        for draw in range(config.draws):
            draws.append(_draw(config, activation, draw, times, late_times))
            progress(a * config.draws + draw + 1, len(ACTIVATIONS) * config.draws)
        by_activation.append(xr.concat(draws, "draw"))
    return xr.concat(by_activation, "activation").assign_coords(
        activation=list(ACTIVATIONS),
        rule=list(RULES),
        sign=("sign", list(SIGNS), {"long_name": "factor of the feedback"}),
        time=("time", times, units),
        late_time=("late_time", late_times, units),
    )


def _draw(
    config: Config, activation: str, draw: int, times: NDArray[np.float64], late_times: NDArray[np.float64]
) -> xr.Dataset:
    """Theory and simulation of one teacher, start and feedback."""
    N, K = config.input_dim, config.hidden
    rng = streams.numpy_generator(config.first_seed, "start", draw)
    start = shallow.OrderParameters.from_weights(
        w=config.weight_scale * rng.standard_normal((K, N)),
        w_teacher=rng.standard_normal((K, N)),
        v=config.weight_scale * rng.standard_normal(K),
        A=np.ones(K),
    )
    feedback = shallow.draw_feedback("random" if activation == "erf" else "positive", start, rng)
    setting: dict[str, Any] = {"lr": config.lr, "activation": activation}
    seeds = [streams.derived_seed(config.first_seed, "simulation", draw, i) for i in range(config.seeds)]
    rules = [shallow_rule(rule) for rule in RULES]
    theory = [shallow.integrate(start, feedback=feedback, rule=rule, times=times, **setting) for rule in rules]
    runs = [
        shallow.simulate(start, feedback=feedback, rule=rule, times=times, input_dim=N, seeds=seeds, **setting)
        for rule in rules
    ]
    late = [shallow.integrate(start, feedback=sign * feedback, times=late_times, **setting) for sign in SIGNS]
    curves: dict[str, Any] = {}
    for name in QUANTITIES:
        curves[f"{name}_theory"] = (("rule", "time"), [getattr(each, name) for each in theory])
        curves[f"{name}_simulation"] = (("rule", "seed", "time"), [getattr(each, name) for each in runs])
    return xr.Dataset(
        curves
        | {
            "feedback": ("unit", feedback),
            "late_readout": (
                ("sign", "late_time", "unit"), [each.v for each in late],
                {"long_name": "v under DFA with sign · F, theory"},
            ),
            "late_error": (
                ("sign", "late_time"), [each.generalisation_error for each in late],
                {"long_name": "ε_g under DFA with sign · F, theory"},
            ),
        }
    )  # fmt: skip


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test both phases, the theory's agreement with simulation, and what the opposite feedback does."""
    dfa = dataset.sel(rule="dfa")
    draws, seeds = dataset.sizes["draw"], dataset.sizes["seed"]
    early, sink = phases(
        dfa.generalisation_error_simulation.transpose("activation", "draw", "seed", "time").values,
        dfa.overlap_simulation.transpose("activation", "draw", "seed", "time").values,
    )
    t = np.concatenate([_t_values(dataset.sel(activation="erf"), name).ravel() for name in QUANTITIES])
    return [
        Verdict(
            claim="cos(v, F) exceeds 0.95 before ε_g has lost half of its start value (smallest value of all runs)",
            effect=float(early.min()),
            spread=float(early.std()),
            threshold=0.95,
            side="above",
            sample=f"{draws} draws × {seeds} simulated seeds for each activation; spread: standard deviation over runs",
        ),
        *(
            mean_verdict(
                f"{activation}: then cos(v, F) sinks, by more than a run's own spread over seeds (threshold)",
                of_one.mean(axis=1),
                float(np.sqrt(of_one.var(axis=1, ddof=1).mean())),
                of="draws",
                sample=f"{draws} draws × {seeds} simulated seeds",
            )
            for activation, of_one in zip(ACTIVATIONS, sink, strict=True)
        ),
        Verdict(
            claim="erf: theory and simulation agree within sampling error: largest |t| over times, draws and rules",
            effect=float(np.abs(t).max()),
            spread=float(np.sqrt((t**2).mean())),
            threshold=float(stats.t.isf(bonferroni(t.size) / 2, seeds - 1)),
            side="below",
            sample=f"{t.size} comparisons of a mean of {seeds} seeds; spread: rms t; threshold: Bonferroni at 0.1 %",
        ),
        *_opposite_feedback(dataset),
    ]


def _opposite_feedback(dataset: xr.Dataset) -> list[Verdict]:
    """Compare where the readout ends with F and with −F."""
    erf, relu = (dataset.sel(activation=activation).isel(late_time=[0, -1]) for activation in ACTIVATIONS)
    final = erf.late_readout.isel(late_time=-1).transpose("draw", "sign", "unit").values
    solved = (erf.late_error.isel(late_time=-1) < SOLVED).transpose("draw", "sign").values
    feedback = erf.feedback.transpose("draw", "unit").values
    expected = [[shallow.selected_solution(np.ones(len(F)), sign * F) for sign in SIGNS] for F in feedback]
    distance = np.linalg.norm(final - expected, axis=-1)[solved]
    cosine = (final[:, 0] * final[:, 1]).sum(axis=-1) / np.linalg.norm(final, axis=-1).prod(axis=-1)
    learned = (relu.late_error.isel(late_time=-1) / relu.late_error.isel(late_time=0)).transpose("draw", "sign").values
    draws = dataset.sizes["draw"]
    return [
        Verdict(
            claim="erf: with −F the readout goes to the solution with all signs reversed: largest cosine of both ends",
            effect=float(cosine.max()),
            spread=float(cosine.std()),
            threshold=-0.99,
            side="below",
            sample=f"{draws} draws, theory; spread: standard deviation",
        ),
        Verdict(
            claim="erf: both ends are the minima with the signs of F and of −F: largest distance of v from them",
            effect=float(distance.max()) if distance.size else np.nan,
            spread=float(distance.std()) if distance.size else np.nan,
            threshold=0.05,
            side="below",
            sample=f"{distance.size} of {solved.size} ends, those with ε_g below {SOLVED:g}; theory; spread: standard "
            "deviation",
        ),
        Verdict(
            claim="relu: with −F nothing is learned: smallest ε_g / ε_g(0) at the end",
            effect=float(learned[:, 1].min()),
            spread=float(learned[:, 1].std()),
            threshold=0.5,
            side="above",
            sample=f"{draws} draws, theory; spread: standard deviation; largest with F: {learned[:, 0].max():.1g}",
        ),
    ]


def _t_values(dataset: xr.Dataset, name: str) -> NDArray[np.float64]:
    """Mean of the simulated runs minus theory, in standard errors, at every time but 0, where both agree by design."""
    after = dataset.isel(time=slice(1, None))
    samples = after[f"{name}_simulation"]
    error = samples.std("seed", ddof=1, skipna=False) / np.sqrt(samples.sizes["seed"])
    return np.asarray((samples.mean("seed", skipna=False) - after[f"{name}_theory"]) / error)


def plot(dataset: xr.Dataset) -> Figure:
    """Draw ε_g, cos(v, F) and the path of v, one row for each activation; the first draw is drawn strongest."""
    error, overlap = r"generalisation error $\epsilon_g$", r"overlap $\cos(v, F)$"
    with figure_style():
        figure = Figure(figsize=(10.4, 4.9), layout="constrained")
        panels = figure.subplots(len(ACTIVATIONS), 4)
        for row, activation in zip(panels, ACTIVATIONS, strict=True):
            left, middle, enlarged, plane = row
            of_one = dataset.sel(activation=activation)
            for axes, name in ((left, "generalisation_error"), (middle, "overlap"), (enlarged, "overlap")):
                for rule in RULES:
                    _draw_rule(axes, of_one.sel(rule=rule, time=dataset.time > 0), name, rule)
                axes.set(xscale="log", xlabel="time (steps / input dimension)", ylabel=overlap)
            left.set(yscale="log", ylabel=error, ylim=(1e-5, 2))
            for axes in (middle, enlarged):
                axes.axhline(1, color="0.7", lw=0.8, zorder=0)
            _draw_plane(plane, of_one)
        panels[0, 2].set_ylim(0.85, 1.01)
        panels[1, 2].set_ylim(0.4, 1.04)
        panels[0, 0].legend()
        titles = ("learns late", "aligns early", "then gives some of it up", "where v goes")
        labels = [f"{activation}: {title}" for activation in ("erf", "ReLU") for title in titles]
        for axes, label, text in zip(panels.flat, labels, "abcdefgh", strict=True):
            letter(axes, text, label)
    return figure


def _draw_plane(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the first two entries of v from start to end, with F and with −F; dots mark the ends."""
    if dataset.activation == "erf":  # the minima of ReLU are no points but whole families
        minima = shallow.global_minima(np.ones(dataset.sizes["unit"])).v
        axes.plot(minima[:, 0], minima[:, 1], "x", color="0.3", ms=7, label="minima")
    for sign, style in zip(SIGNS, ("-", "--"), strict=True):
        v = dataset.late_readout.sel(sign=sign).transpose("draw", "late_time", "unit").values
        for draw in range(len(v) - 1, -1, -1):
            axes.plot(
                v[draw, :, 0], v[draw, :, 1], style, color=RULE_COLOURS["dfa"], lw=0.7 if draw else 1.6,
                alpha=0.4 if draw else 1, label=None if draw else {1: "with F", -1: "with −F"}[sign],
            )  # fmt: skip
            axes.plot(*v[draw, -1, :2], "o", ms=3.5, color=RULE_COLOURS["dfa"], markerfacecolor="white")
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="$v_1$", ylabel="$v_2$")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.45 * (high - low))  # room for the legend
    axes.legend(loc="upper right")


def _draw_rule(axes: Axes, dataset: xr.Dataset, name: str, rule: str) -> None:
    theory, colour = dataset[f"{name}_theory"].transpose("time", "draw"), RULE_COLOURS[rule]
    axes.plot(dataset.time, theory.isel(draw=slice(1, None)), color=colour, lw=0.6, alpha=0.3)
    axes.plot(dataset.time, theory.isel(draw=0), color=colour, label=f"{RULE_LABELS[rule]}, theory")
    points = dataset[f"{name}_simulation"].isel(draw=0, time=slice(None, None, 2))
    axes.errorbar(
        points.time, points.mean("seed"), points.std("seed"), fmt="o", ms=3, lw=1, color=colour,
        markerfacecolor="white", label=f"{RULE_LABELS[rule]}, simulation",
    )  # fmt: skip


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    seeds, others = dataset.sizes["seed"], dataset.sizes["draw"] - 1
    return (
        "Networks with K = M = 2, erf above and ReLU below. Generalisation error (a, e) and overlap of readout and "
        "feedback (b, f; c and g enlarge its top). Strong lines: theory of one draw of teacher, start and feedback; "
        f"points: mean and standard deviation of {seeds} simulated runs of that draw; thin lines: theory of {others} "
        "further draws. (d, h) Theory of the readout under DFA from its start near 0 to its end (dots), with feedback "
        "F and with −F; crosses: the global minima of erf. The two ends of an erf student have opposite signs; a ReLU "
        "student with −F stays near 0. Simulated ReLU students leave plateaus a little earlier than the theory "
        "predicts, because the theory neglects fluctuations at finite N."
    )
