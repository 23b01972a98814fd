r"""Which ReLU students can learn at all: the signs of the feedback decide before learning has begun.

Claim: relu(z) = γ relu(z/γ) only for γ > 0, so a hidden unit whose readout follows its feedback cannot change the sign
it adds with. With positive teacher readout a student of K units learns a teacher of M exactly if at least M entries of
its feedback are positive, which random signs give with probability 2^-K Σ_{k ≤ K−M} binom(K, k).

Setting: reduced simulation, exact in law; the teacher's readout is all one; feedback has random signs and magnitudes
uniform on [0.5, 1.5]. An entry near zero would make learning slow, not impossible, and these runs end at a finite time.

Source: Refinetti et al. (2021), section 2.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from feedalign.errors import DivergenceError
from feedalign.lab.experiments.progress import Progress
from feedalign.lab.experiments.verdict import Verdict
from feedalign.style import figure_style, layer_colours, letter
from feedalign.theory import shallow

NAME = "relu-recovery"
CLAIM = (
    "A ReLU student trained with direct feedback alignment learns a teacher of M units with positive readout exactly "
    "if at least M entries of its feedback are positive."
)
# Between the largest error of runs that learned and the smallest of those that did not lie two orders of magnitude.
SUCCESS = 1e-2


@dataclass(frozen=True)
class Config:
    """Everything that decides the result.

    Attributes:
        input_dim: N of the simulation.
        teachers: values of M.
        most_students: largest K; the smallest is M.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        end_time: in steps / N.
        runs: independent teachers, starts and feedback vectors for each pair of M and K.
        first_seed: of the runs.
    """

    input_dim: int = 100
    teachers: tuple[int, ...] = (1, 2, 3)
    most_students: int = 8
    lr: float = 0.1
    weight_scale: float = 0.1
    end_time: float = 2000.0
    runs: int = 40
    first_seed: int = 0


CONFIGS = {"quick": Config(), "paper": Config(input_dim=500, end_time=10_000.0, runs=200)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


def run(config: Config, progress: Progress) -> xr.Dataset:
    """Simulate every run of every pair (M, K)."""
    cases = [(M, K) for M in config.teachers for K in range(M, config.most_students + 1)]
    tasks = [(M, K, i) for M, K in cases for i in range(config.runs)]
    positive, error = np.empty(len(tasks), int), np.empty(len(tasks))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for done, result in enumerate(threads.map(lambda task: _one(config, *task), tasks)):
            positive[done], error[done] = result
            progress(done + 1, len(tasks))
    shape = (len(cases), config.runs)
    return xr.Dataset(
        {
            "positive_feedback": (("case", "run"), positive.reshape(shape)),
            "generalisation_error": (("case", "run"), error.reshape(shape)),
        },
        coords={"teachers": ("case", [M for M, _ in cases]), "students": ("case", [K for _, K in cases])},
    )


def _one(config: Config, M: int, K: int, index: int) -> tuple[int, float]:
    """Return how many entries of the feedback are positive, and the error at the end; infinite if it diverged."""
    rng = np.random.default_rng([config.first_seed, M, K, index])
    start = shallow.draw_start(
        np.ones(M),
        students=K,
        input_dim=config.input_dim,
        rng=rng,
        w_std=config.weight_scale,
        v_std=config.weight_scale,
    )
    feedback = rng.choice([-1.0, 1.0], K) * rng.uniform(0.5, 1.5, K)
    try:
        trajectory = shallow.simulate(
            start, feedback=feedback, lr=config.lr, times=[config.end_time], input_dim=config.input_dim,
            activation="relu", seed=int(rng.integers(2**32)),
        )  # fmt: skip
    except DivergenceError:
        return int((feedback > 0).sum()), np.inf
    return int((feedback > 0).sum()), float(trajectory.generalisation_error[-1])


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Hold condition and formula against the runs."""
    error, met = dataset.generalisation_error, dataset.positive_feedback >= dataset.teachers
    learned = error < SUCCESS
    wrong, total = int((learned != met).sum()), learned.size
    bound = stats.binomtest(wrong, total).proportion_ci().high
    learned_errors, other_errors = error.values[learned], error.values[~learned]
    finite = other_errors[np.isfinite(other_errors)]
    gap = np.log10(other_errors.min() / max(learned_errors.max(), 1e-16)) if 0 < learned.sum() < total else np.nan
    expected = [shallow.recovery_probability(int(case.students), int(case.teachers)) for case in learned]
    p_values = [
        stats.binomtest(int(case.sum()), case.size, share).pvalue for case, share in zip(learned, expected, strict=True)
    ]
    return [
        Verdict(
            claim="learned and condition disagree in (share of runs)",
            effect=wrong / total,
            spread=bound - wrong / total,
            threshold=0.01,
            side="below",
            sample=f"{total} runs, {wrong} disagree; spread: to the upper end of the 95 % interval (exact)",
            margin=1.0,
        ),
        Verdict(
            claim="success fractions follow the formula: smallest p-value of the exact binomial tests",
            effect=float(min(p_values)),
            spread=float(np.std(p_values)),
            threshold=0.001 / len(p_values),
            side="above",
            sample=f"{len(p_values)} pairs (M, K) of {error.sizes['run']} runs; threshold: Bonferroni at 0.1 %",
        ),
        Verdict(
            claim=f"success is no matter of where the line is drawn (ε_g = {SUCCESS:g}): decades between the largest "
            "error of runs that learned and the smallest of the others",
            effect=float(gap),
            spread=float(np.log10(finite).std()) if finite.size else np.nan,
            threshold=0.5,
            side="above",
            sample=f"{len(learned_errors)} runs that learned, {len(other_errors)} others; spread: of the others",
        ),
    ]


def plot(dataset: xr.Dataset) -> Figure:
    """Draw success fractions beside the formula, and the error of every run against the condition."""
    learned = dataset.generalisation_error < SUCCESS
    values = sorted({int(M) for M in dataset.teachers})
    with figure_style():
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for M, colour in zip(values, layer_colours(len(values)), strict=True):
            cases = dataset.teachers == M
            students = dataset.students.values[cases]
            tests = [stats.binomtest(int(case.sum()), case.size) for case in learned[cases]]
            share = np.array([test.k / test.n for test in tests])
            interval = np.array([test.proportion_ci(method="wilson") for test in tests])
            left.plot(students, [shallow.recovery_probability(int(K), M) for K in students], color=colour)
            left.errorbar(
                students, share, np.abs(interval.T - share), fmt="o", ms=4, lw=1, color=colour,
                markerfacecolor="white", label=f"M = {M}",
            )  # fmt: skip
            surplus = (dataset.positive_feedback - M).values[cases]
            jitter = np.random.default_rng(M).uniform(-0.12, 0.12, surplus.shape) + 0.26 * (M - np.mean(values))
            errors = np.maximum(dataset.generalisation_error.values[cases], 1e-9)
            right.plot((surplus + jitter).ravel(), errors.ravel(), ".", ms=3, alpha=0.5, color=colour)
        left.set(xlabel="students K", ylabel="share of runs that learn", ylim=(-0.03, 1.03))
        left.legend(title="teacher units", loc="lower right")
        letter(left, "a", "chance of a student")
        right.axhline(SUCCESS, color="0.7", lw=0.8, zorder=0)
        right.axvline(-0.5, color="0.7", lw=0.8, ls=":", zorder=0)
        right.set(
            yscale="log", xlabel="positive feedback entries − M", ylabel=r"final generalisation error $\epsilon_g$"
        )
        letter(right, "b", "run by run")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows and over how many runs."""
    return (
        f"ReLU students of teachers with M units. (a) Share of {dataset.sizes['run']} runs that learn (points, 95 % "
        "Wilson intervals) beside the formula (lines). (b) Final error of every run, at least 1e-9, against how many "
        f"positive feedback entries it has more than M; horizontal line: ε_g = {SUCCESS:g}, below which a run counts "
        "as learned; dotted: the condition."
    )
