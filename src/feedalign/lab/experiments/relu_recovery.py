r"""Which ReLU students can learn at all: the signs of the feedback decide before learning has begun.

Why: relu(z) = γ relu(z/γ) only for γ > 0, so every teacher unit needs a student unit whose v_k is positive. A unit
whose v_k has the opposite sign of F_k cannot serve (see `feedalign.theory.shallow.can_recover`). The readouts do not
all take the signs of the feedback: in runs that fail, many units with F_k < 0 end with v_k > 0.

Setting: reduced simulation, exact in law. All entries of the teacher's readout are one. The feedback has random signs
and magnitudes uniform on [0.5, 1.5]: an entry near zero would make learning slow, and the runs end at a finite time.

Sizes of `quick` were chosen on first_seed = 5 100 000: with N = 30, nearly all runs have learned or failed by t = 1500.
With 60 runs for each pair, the mean difference from the formula has a standard error of 0.011. A formula that is true
is then found within the limits in more than 99 % of base seeds.

Source: Refinetti et al. (2021), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from feedalign.errors import DivergenceError
from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import in_turn, jobs_on_grid, on_grid
from feedalign.lab.experiments.common.verdict import Verdict, weakest
from feedalign.lab.panels import panels
from feedalign.lab.runs import Desk, Job
from feedalign.streams import derived_seed, numpy_generator
from feedalign.style import figure_style, layer_colours
from feedalign.theory import shallow

NAME = "relu-recovery"
CLAIM = CLAIMS[NAME]
# A run has learned if its final ε_g is below this value. All but about one in a thousand of the runs that learn end
# below 1e-3, and the others above 2e-2.
SUCCESS = 1e-2
# How far the share of runs that learn may be from the formula.
FORMULA_WITHIN = 0.05


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs have in common.

    Attributes:
        input_dim: N of the simulation.
        teachers: values of M.
        most_students: largest K; the smallest K is M.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        end_time: in steps / N.
        first_seed: seed from which every run gets its own.
    """

    input_dim: int = 30
    teachers: tuple[int, ...] = (1, 2, 3)
    most_students: int = 8
    lr: float = 0.1
    weight_scale: float = 0.1
    end_time: float = 2000.0
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, the number of runs.

    Attributes:
        runs: independent teachers, starts and feedback vectors for each pair of M and K.
    """

    runs: int = 60


CONFIGS = {"quick": Config(), "paper": Config(input_dim=500, end_time=10_000.0, runs=200)}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


@dataclass(frozen=True, kw_only=True)
class Students(Setting, Job):
    """One run of every pair (M, K).

    Attributes:
        run: number of the run.
    """

    kind = f"{NAME}-students"
    run: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Simulate one student for every pair, and store its final error and how many entries of F are positive."""
        cases = pairs(self.teachers, self.most_students)
        positive, error = zip(*(self._student(*case) for case in in_turn(desk, cases)), strict=True)
        return xr.Dataset({"positive_feedback": ("case", [*positive]), "generalisation_error": ("case", [*error])})

    def _student(self, M: int, K: int) -> tuple[int, float]:
        """Return how many entries of the feedback are positive, and the final error, infinite if the run diverged."""
        rng = numpy_generator(self.first_seed, "start", M, K, self.run)
        scale = self.weight_scale
        start = shallow.draw_start(np.ones(M), students=K, input_dim=self.input_dim, rng=rng, w_std=scale, v_std=scale)
        of_feedback = numpy_generator(self.first_seed, "feedback", M, K, self.run)
        feedback = of_feedback.choice([-1.0, 1.0], K) * of_feedback.uniform(0.5, 1.5, K)
        positive = int((feedback > 0).sum())
        try:
            trajectory = shallow.simulate(
                start, feedback=feedback, lr=self.lr, times=[self.end_time], input_dim=self.input_dim,
                activation="relu", seed=derived_seed(self.first_seed, "simulation", M, K, self.run),
            )  # fmt: skip
        except DivergenceError:
            return positive, np.inf
        return positive, float(trajectory.generalisation_error[-1])


def pairs(teachers: tuple[int, ...], most_students: int) -> list[tuple[int, int]]:
    """Return all pairs (M, K): each M with every K from M to `most_students`."""
    return [(M, K) for M in teachers for K in range(M, most_students + 1)]


def jobs(config: Config) -> list[Students]:
    """Return a job for every run."""
    return jobs_on_grid(Students, config, run=range(config.runs))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the runs side by side."""
    cases = pairs(config.teachers, config.most_students)
    return (
        on_grid(results, run=config.runs)
        .transpose("case", "run")
        .assign_coords(teachers=("case", [M for M, _ in cases]), students=("case", [K for _, K in cases]))
    )


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the condition and the formula for its probability against the runs."""
    error, met = dataset.generalisation_error, dataset.positive_feedback >= dataset.teachers
    learned = (error < SUCCESS).where(error.notnull())
    expected = [shallow.recovery_probability(int(case.students), int(case.teachers)) for case in learned]
    beyond = (learned - xr.DataArray(expected, dims="case")).mean("case", skipna=False).values
    # What has learned to the last digit may end a rounding error below 0.
    apart = abs(np.log10(error.clip(min=np.finfo(float).tiny) / SUCCESS))
    run = "a run with a start and feedback of its own"
    one_of_each = f"one run of each of {error.sizes['case']} pairs (M, K), mean over pairs"
    formula = f"success fractions follow the formula: the mean difference is within ±{FORMULA_WITHIN:g}"
    return [
        Verdict.of_share(
            "share of runs in which the condition does not tell whether the run learned",
            (learned != met).where(error.notnull()), 0.01, "below", sample=run,
        ),
        weakest([  # two one-sided tests: the difference is above the lower limit and below the upper one
            Verdict.of_mean(formula, beyond, -FORMULA_WITHIN, sample=one_of_each),
            Verdict.of_mean(formula, beyond, FORMULA_WITHIN, "below", sample=one_of_each),
        ]),
        Verdict.of_share(
            f"the threshold of success (ε_g = {SUCCESS:g}) does not matter: share of runs that end within a factor of "
            "1.8 of it",
            (apart < 0.25).where(error.notnull()), 0.01, "below", sample=run,
        ),
    ]  # fmt: skip


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw success fractions beside the formula, and the error of every run against the condition."""
    learned = dataset.generalisation_error < SUCCESS
    values = sorted({int(M) for M in dataset.teachers})
    figure, (left, right) = panels(7.2, 2.9, ("chance of a student", "run by run"))
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
        jitter = numpy_generator(M, "jitter").uniform(-0.12, 0.12, surplus.shape) + 0.26 * (M - np.mean(values))
        errors = np.maximum(dataset.generalisation_error.values[cases], 1e-9)
        right.plot((surplus + jitter).ravel(), errors.ravel(), ".", ms=3, alpha=0.5, color=colour)
    left.set(xlabel="students K", ylabel="share of runs that learn", ylim=(-0.03, 1.03))
    left.legend(title="teacher units", loc="lower right")
    right.axhline(SUCCESS, color="0.7", lw=0.8, zorder=0)
    right.axvline(-0.5, color="0.7", lw=0.8, ls=":", zorder=0)
    right.set(yscale="log", xlabel="positive feedback entries − M", ylabel=r"final generalisation error $\epsilon_g$")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        f"ReLU students of teachers with M units. (a) Share of {dataset.sizes['run']} runs that learn (points, 95 % "
        "Wilson intervals), and the formula (lines). (b) Final error of every run, drawn at 1e-9 if smaller, against "
        f"the number of its positive feedback entries minus M; horizontal line: ε_g = {SUCCESS:g}, below which a run "
        "counts as learned; dotted: the condition."
    )
