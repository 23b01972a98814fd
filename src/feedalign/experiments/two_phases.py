r"""Align, then memorise: the two phases of DFA in a shallow network.

Claim: from small weights the readout v first turns to the feedback F, cos(v, F) → 1, while the generalisation error has
hardly moved; then the student learns its teacher, and the cosine sinks to what the teacher allows. The order-parameter
equations describe both phases.

Setting: K = M = 2 erf units; the teacher's readout is (1, 1), first layers and feedback are Gaussian. Equal teacher
weights make the second phase visible for nearly every F: the solution's cosine is Σ|F_k| / (√K |F|), one only where all
|F_k| are equal.

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

from feedalign.experiments.progress import Progress
from feedalign.experiments.style import RULE_COLOURS, RULE_LABELS, figure_style, letter
from feedalign.experiments.verdict import Verdict
from feedalign.theory import shallow

NAME = "two-phases"
CLAIM = (
    "A shallow network trained with direct feedback alignment first aligns its readout with the feedback, and only "
    "then learns its teacher, giving some of the alignment up; the order-parameter equations describe both phases."
)


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        input_dim: N of the simulation.
        hidden: K = M.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        end_time: in steps / N.
        measurements: number of times, log-spaced after time 0.
        draws: independent teachers, starts and feedback vectors.
        seeds: simulated runs per draw and rule.
        first_seed: of the draws.
    """

    input_dim: int = 500
    hidden: int = 2
    lr: float = 0.1
    weight_scale: float = 0.01
    end_time: float = 1000.0
    measurements: int = 40
    draws: int = 8
    seeds: int = 20
    first_seed: int = 0


CONFIGS = {"quick": Config(), "paper": Config(end_time=2000.0, measurements=60, draws=40)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian
RULES = ("dfa", "bp")


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Integrate and simulate every draw under both rules."""
    N, K = config.input_dim, config.hidden
    times = np.geomspace(0.1, config.end_time, config.measurements)
    times = np.unique(np.concatenate([[0.0], np.rint(times * N) / N]))
    names = ("generalisation_error", "overlap")
    theory = {name: np.empty((config.draws, len(RULES), len(times))) for name in names}
    simulation = {name: np.empty((config.draws, len(RULES), config.seeds, len(times))) for name in names}
    for draw in range(config.draws):
        rng = np.random.default_rng([config.first_seed, draw])
        start = shallow.OrderParameters.from_weights(
            w=config.weight_scale * rng.standard_normal((K, N)),
            w_teacher=rng.standard_normal((K, N)),
            v=config.weight_scale * rng.standard_normal(K),
            A=np.ones(K),
        )
        feedback = rng.standard_normal(K)
        for i, rule in enumerate(RULES):
            setting: dict[str, Any] = {"feedback": feedback, "lr": config.lr, "times": times, "rule": rule}
            exact = shallow.integrate(start, **setting)
            seeds = range(draw * config.seeds, (draw + 1) * config.seeds)
            runs = shallow.simulate(start, **setting, input_dim=N, seeds=seeds)
            for name in names:
                theory[name][draw, i] = getattr(exact, name)
                simulation[name][draw, i] = getattr(runs, name)
            progress(draw * len(RULES) + i + 1, config.draws * len(RULES))
    return xr.Dataset(
        {f"{name}_theory": (("draw", "rule", "time"), values) for name, values in theory.items()}
        | {f"{name}_simulation": (("draw", "rule", "seed", "time"), values) for name, values in simulation.items()},
        coords={"rule": list(RULES), "time": ("time", times, {"units": "steps / input dimension"})},
    )


def phases(error: NDArray[np.float64], overlap: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest overlap before the error has halved, and the sink from the overall peak to the end.

    Args:
        error: generalisation error [..., time].
        overlap: cos(v, F) [..., time].

    Returns:
        Both [...]; a run whose error never halves counts whole as "before".
    """
    halved = np.logical_or.accumulate(error < error[..., :1] / 2, axis=-1)
    return np.where(halved, -1.0, overlap).max(-1), overlap.max(-1) - overlap[..., -1]


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold the three parts of the claim against the data."""
    dfa = dataset.sel(rule="dfa")
    early, sink = phases(
        dfa.generalisation_error_simulation.transpose("draw", "seed", "time").values,
        dfa.overlap_simulation.transpose("draw", "seed", "time").values,
    )
    draws, seeds = early.shape
    runs = f"{draws} draws × {seeds} simulated seeds"
    within = float(np.sqrt(sink.var(axis=1, ddof=1).mean()))
    t = np.concatenate([_t_values(dataset, name).ravel() for name in ("generalisation_error", "overlap")])
    return [
        Verdict(
            claim="cos(v, F) exceeds 0.95 before ε_g has lost half of its start value (smallest value of all runs)",
            effect=float(early.min()),
            spread=float(early.std()),
            threshold=0.95,
            side="above",
            sample=f"{runs}; spread: standard deviation over runs",
        ),
        Verdict(
            claim="afterwards cos(v, F) sinks, by more than a run's own spread over seeds (threshold)",
            effect=float(sink.mean()),
            spread=float(sink.mean(axis=1).std(ddof=1) / np.sqrt(draws)),
            threshold=within,
            side="above",
            sample=f"{runs}; spread: standard error over draws, one-sided 95 % (t)",
            margin=float(stats.t.isf(0.05, draws - 1)),
        ),
        Verdict(
            claim="theory and simulation agree within sampling error: largest |t| over times, draws and rules",
            effect=float(np.abs(t).max()),
            spread=float(np.sqrt((t**2).mean())),
            threshold=float(stats.t.isf(0.0005 / t.size, seeds - 1)),
            side="below",
            sample=f"{t.size} comparisons of a mean of {seeds} seeds; spread: rms t; threshold: Bonferroni at 0.1 %",
        ),
    ]


def _t_values(dataset: xr.Dataset, name: str) -> NDArray[np.float64]:
    after = dataset.isel(time=slice(1, None))  # at time 0 they agree by construction
    samples = after[f"{name}_simulation"]
    error = samples.std("seed", ddof=1, skipna=False) / np.sqrt(samples.sizes["seed"])
    return np.asarray((samples.mean("seed", skipna=False) - after[f"{name}_theory"]) / error)


def plot(dataset: xr.Dataset) -> Figure:
    """Draw ε_g and cos(v, F) over time: theory as lines, simulation as points, the first draw in full colour."""
    error, overlap = r"generalisation error $\epsilon_g$", r"overlap $\cos(v, F)$"
    panels = [
        ("generalisation_error", error, "learns late"),
        ("overlap", overlap, "aligns early"),
        ("overlap", overlap, "then gives some of it up"),
    ]
    with figure_style():
        figure = Figure(figsize=(8.6, 2.8), layout="constrained")
        for axes, (name, label, title), text in zip(figure.subplots(1, 3), panels, "abc", strict=True):
            for rule in RULES:
                _draw_rule(axes, dataset.sel(rule=rule, time=dataset.time > 0), name, rule)
            axes.set(xscale="log", xlabel="time (steps / input dimension)", ylabel=label)
            letter(axes, text, title)
        left, middle, right = figure.axes
        left.set_yscale("log")
        left.legend()
        for axes in (middle, right):
            axes.axhline(1, color="0.7", lw=0.8, zorder=0)
        right.set_ylim(0.85, 1.01)
    return figure


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
    """Say what the figure shows and over how many runs."""
    seeds, others = dataset.sizes["seed"], dataset.sizes["draw"] - 1
    return (
        "Generalisation error (a) and overlap of readout and feedback (b; c enlarges its top) of erf networks with "
        "K = M = 2. Strong lines: theory of one draw of teacher, start and feedback; points: mean and standard"
        f" deviation of {seeds} simulated runs of it; thin lines: theory of {others} further draws."
    )
