r"""Fewer and more students than teachers: what aligns when the teacher cannot be matched, or in many ways.

Alignment does not need a solution. A student with K ≥ 2M units has more solutions to choose from than one with K = M.
With K < M there are too few units for one each.

Setting: reduced simulation, exact in law. The teacher has M units of equal readout; the feedback is Gaussian. For ReLU
the feedback is made positive, since otherwise some teachers could not be learned (see relu-recovery). Backprop with
ReLU ends with a positive readout as well, and is therefore aligned to some degree: it is the baseline.

Sizes of `quick` were chosen on first_seed = 5 000 000. By the spread seen there, 80 runs find what students with K ≥ 2M
keep at t = 3000 (0.04 for erf, 0.1 for ReLU) in 99 % of base seeds.

Source: Refinetti et al. (2021), section 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from feedalign.errors import DivergenceError
from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import in_turn, jobs_on_grid, on_grid
from feedalign.lab.experiments.common.shallow_runs import learns, log_times, phases
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on, weakest_of
from feedalign.lab.panels import panels
from feedalign.lab.runs import Desk, Job
from feedalign.lab.shallow_rule import shallow_rule
from feedalign.streams import derived_seed, numpy_generator
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style, layer_colours
from feedalign.theory import shallow

NAME = "overparametrisation"
CLAIM = CLAIMS[NAME]
ACTIVATIONS = ("erf", "relu")
RULES = ("dfa", "backprop")
ACTIVATION_LABELS = {"erf": "erf", "relu": "ReLU, F > 0"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs have in common.

    Attributes:
        input_dim: N of the simulation.
        teachers: M.
        students: values of K: some below M, M itself, and some of at least 2M.
        lr: η of both layers.
        weight_scale: standard deviation of the student's initial weights in both layers.
        end_time: in steps / N.
        measurements: number of measured times, evenly spaced in log time.
        first_seed: seed from which every run gets its own.
    """

    input_dim: int = 30
    teachers: int = 3
    students: tuple[int, ...] = (2, 3, 4, 6)
    lr: float = 0.1
    weight_scale: float = 0.01
    end_time: float = 3000.0
    measurements: int = 60
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, the number of runs.

    Attributes:
        runs: independent teachers, starts and feedback vectors for each K, activation and rule.
    """

    runs: int = 80


CONFIGS = {
    "quick": Config(),
    "paper": Config(input_dim=500, students=(2, 3, 4, 5, 6, 8, 12), end_time=20_000.0, runs=100),
}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian


@dataclass(frozen=True, kw_only=True)
class Students(Setting, Job):
    """One run of every activation, rule and number of students K.

    Attributes:
        run: number of the run.
    """

    kind = f"{NAME}-students"
    run: int

    def compute(self, desk: Desk) -> xr.Dataset:
        """Simulate every case; a student that diverges is NaN throughout."""
        times = log_times(self.end_time, self.measurements, self.input_dim)
        cases = list(itertools.product(ACTIVATIONS, RULES, self.students))
        found = [self._student(times, *case) for case in in_turn(desk, cases)]
        dataset = on_grid(found, activation=ACTIVATIONS, rule=RULES, students=self.students)
        return dataset.assign_coords(time=("time", times, {"units": "steps / input dimension"}))

    def _student(self, times: NDArray[np.float64], activation: str, rule: str, K: int) -> xr.Dataset:
        rng = numpy_generator(self.first_seed, "start", K, self.run)  # the same for both rules
        A, N, scale = np.ones(self.teachers), self.input_dim, self.weight_scale
        start = shallow.draw_start(A, students=K, input_dim=N, rng=rng, w_std=scale, v_std=scale)
        feedback = shallow.draw_feedback(
            "random" if activation == "erf" else "positive",
            start,
            numpy_generator(self.first_seed, "feedback", K, self.run),
        )
        error, overlap, first, second = np.full((4, len(times)), np.nan)
        with suppress(DivergenceError):
            trajectory = shallow.simulate(
                start, feedback=feedback, lr=self.lr, times=times, input_dim=N, activation=activation,
                rule=shallow_rule(rule), seed=derived_seed(self.first_seed, "simulation", K, self.run),
            )  # fmt: skip
            error, overlap = trajectory.generalisation_error, trajectory.overlap
            first, second = _unit_overlaps(trajectory)
        return xr.Dataset(
            {
                "generalisation_error": ("time", error),
                "overlap": ("time", overlap),
                "unit_overlap": ("time", first, {"long_name": "max |cos(w_k, w̃_m)|, mean"}),
                "second_overlap": ("time", second, {"long_name": "second largest |cos(w_k, w̃_m)| of a unit, largest"}),
            }
        )


def _unit_overlaps(trajectory: shallow.Trajectory) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how student units lie to teacher units, by |cosine|, [time] each.

    The first is the cosine with the nearest teacher unit, mean over students. The second is the cosine with the
    second nearest teacher unit, of the student unit in which this cosine is largest.
    """
    lengths = np.sqrt(np.diagonal(trajectory.Q, axis1=-2, axis2=-1)[..., None] * np.diag(trajectory.start.T))
    cosines = np.abs(trajectory.R / lengths)
    # A zero is added, so that there is a second value where the teacher has a single unit.
    cosines = np.sort(np.concatenate([cosines, np.zeros_like(cosines[..., :1])], axis=-1), axis=-1)
    return cosines[..., -1].mean(axis=-1), cosines[..., -2].max(axis=-1)


def jobs(config: Config) -> list[Students]:
    """Return a job for every run."""
    return jobs_on_grid(Students, config, run=range(config.runs))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the runs side by side."""
    dataset = on_grid(results, run=config.runs).transpose("activation", "rule", "students", "run", "time")
    return dataset.assign_attrs(teachers=config.teachers)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test early alignment against backprop, what is left of it at the end, and what units of small students do."""
    M, error, overlap = dataset.attrs["teachers"], dataset.generalisation_error.values, dataset.overlap
    final = overlap.isel(time=-1, drop=True)
    early = final.copy(data=phases(error, overlap.values)[0])
    # A student of DFA that learns nothing has not aligned before it learns. A run that diverged stays no number.
    idle = (early.rule == "dfa") & ~final.copy(data=learns(error)) & early.notnull()
    early = early.where(~idle, -1.0)
    of_erf = early.sel(activation="erf").mean("students", skipna=False)
    few, fits, many = _by_size(final.sel(rule="dfa"), M)
    between_few, between_fits, _ = _by_size(dataset.second_overlap.isel(time=-1).sel(rule="dfa", activation="erf"), M)
    run = "a run with a draw of teacher, start and feedback"
    beyond = {label: (many - fits).sel(activation=activation) for activation, label in ACTIVATION_LABELS.items()}
    diverged = int(np.isnan(final.sel(rule="dfa")).sum())
    return [
        weakest_of(
            "DFA: the largest cos(v, F) before ε_g has halved, whatever K (weakest K and activation)",
            {
                f"{label}, K = {int(K)}": early.sel(rule="dfa", activation=activation, students=K)
                for activation, label in ACTIVATION_LABELS.items()
                for K in dataset.students
            },
            0.95, sample=run,
        ),
        Verdict.of_difference(
            "erf: that cosine under DFA minus the same under backprop from the same start",
            of_erf.sel(rule="dfa"), of_erf.sel(rule="backprop"), 0.2, sample=f"{run} for each K, mean over K",
        ),
        *verdicts_on(f"a run for each K with a draw of teacher, start and feedback; {diverged} diverged", {
            "erf: students with K < M keep nearly as much of the alignment as those with K = M: difference of final "
            "cos(v, F)": ((few - fits).sel(activation="erf"), "above", -0.1),
            "students with K ≥ 2M end more aligned than those with K = M: difference of final cos(v, F) (weaker "
            "activation)": (beyond, "above", 0.0),
        }),
        Verdict.of_difference(
            "erf: units of students with K < M lie between teacher units, more than those with K = M: the second "
            "largest |cos(w_k, w̃_m)| of a unit, at the end, of the unit in which this is largest: difference",
            between_few, between_fits, sample=f"{run} for each K",
        ),
    ]  # fmt: skip


def _by_size(values: xr.DataArray, M: int) -> list[xr.DataArray]:
    """Return the means over the students with K < M, those with K = M, and those with K ≥ 2M."""
    K = values.students
    return [values.sel(students=which).mean("students", skipna=False) for which in (K < M, K == M, K >= 2 * M)]


@figure_style()
def plot(dataset: xr.Dataset) -> Figure:
    """Draw ε_g, cos(v, F) and the units' cosine over time for every K, and final cosines of both rules against K."""
    titles = (
        f"erf, M = {dataset.attrs['teachers']}", "the same students align first", "units turn to teachers",
        "what is kept at the end",
    )  # fmt: skip
    figure, (left, middle, units, right) = panels(10.4, 2.8, titles)
    dfa = dataset.sel(rule="dfa", activation="erf", time=dataset.time > 0)
    colours = layer_colours(dataset.sizes["students"])
    for K, colour in zip(dataset.students.values, colours, strict=True):
        of_size = dfa.sel(students=K)
        left.plot(of_size.time, of_size.generalisation_error.median("run"), color=colour, label=f"{K}")
        middle.plot(of_size.time, of_size.overlap.mean("run"), color=colour)
        units.plot(of_size.time, of_size.unit_overlap.mean("run"), color=colour)
    left.set(xscale="log", yscale="log", ylabel=r"generalisation error $\epsilon_g$")
    left.legend(title="students K", ncols=2, loc="lower left", handlelength=1.2, columnspacing=1)
    middle.set(xscale="log", ylabel=r"overlap $\cos(v, F)$")
    units.axhline(1 / np.sqrt(dataset.attrs["teachers"]), color="0.7", lw=0.8, ls=":", zorder=0)
    units.set(xscale="log", ylabel=r"units: mean of $\max_m |\cos(w_k, \tilde w_m)|$", ylim=(0, 1.05))
    for axes in (left, middle, units):
        axes.set(xlabel="time (steps / input dimension)")
    _draw_final(right, dataset)
    return figure


def _draw_final(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the final cos(v, F) against K for both activations and rules."""
    final = dataset.overlap.isel(time=-1)
    for activation, style in zip(ACTIVATIONS, ("-", "--"), strict=True):
        for rule in RULES:
            runs = final.sel(activation=activation, rule=rule)
            axes.errorbar(
                dataset.students, runs.mean("run"), 2 * stats.sem(runs.transpose("run", ...).values), ls=style, lw=1.2,
                marker="o", ms=3.5, markerfacecolor="white", color=RULE_COLOURS[rule],
                label=f"{RULE_LABELS[rule]}, {ACTIVATION_LABELS[activation]}",
            )  # fmt: skip
    axes.axvline(dataset.attrs["teachers"], color="0.7", lw=0.8, ls=":", zorder=0)
    axes.set(xlabel="students K", ylabel=r"final $\cos(v, F)$", xticks=dataset.students.values, ylim=(-1.15, 1.05))
    axes.legend(loc="lower right", fontsize=7)


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        f"Students with K units of a teacher with M = {dataset.attrs['teachers']} units of equal readout. Median "
        "generalisation error (a) and mean overlap of readout and feedback (b) of erf students under DFA. (c) Cosine "
        "of a student unit with the teacher unit nearest to it, mean over units and runs; dotted: 1/√M, the value of a "
        "unit that serves all teacher units alike. (d) Final overlap: mean and two standard errors; dotted: K = M. "
        f"{dataset.sizes['run']} runs for each K, activation and rule."
    )
