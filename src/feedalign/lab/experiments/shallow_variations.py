r"""Variations of the shallow network: what aligns with other teachers, other feedback and other starts.

Why noise takes alignment: its fluctuations lengthen w_k in proportion to F_k², and a longer w_k needs a smaller v_k. So
the readout shrinks most where F is largest.

Why an informed start can be left: near the teacher, w_k moves along F_k / v_k times the direction of descent. Where the
signs of F_k and v_k differ, that is uphill, and the solution is unstable.

Setting: K = M = 2 (4 where said so), A = (1, …, 1) unless alternating. For erf, the alternating teacher is the plain
one with a first-layer unit turned, so the two agree in law; for ReLU they do not. Backprop from the same start is the
control. Variations with the same K share the teacher, the directions of the start and the sizes of random feedback.

Thresholds were chosen on first_seed = 1 000 000, sizes of `quick` on 5 000 000, 5 300 000 and 5 400 000. All erf
students that start from small or zero weights, or with a large readout, have halved their error at t = 200. With N
below 300, too few inputs have come at the first measured times to settle the cosine of a readout that starts from zero.

Source: Refinetti et al. (2021), section 2, whose kinds of feedback and starts these are. The claims about large
readouts, informed starts and noise are this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.shallow_runs import QUANTITIES, distance, early_overlap
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on, weakest, weakest_of
from feedalign.lab.experiments.shallow_variations_figure import plot
from feedalign.lab.experiments.shallow_variations_job import LEARNED, VARIATIONS, Setting, Students

__all__ = ["CLAIM", "CONFIGS", "NAME", "ON_DATASET", "Config", "caption", "check", "gather", "jobs", "plot"]

NAME = "shallow-variations"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """Everything that decides the result: besides `Setting`, the number of draws.

    Attributes:
        draws: independent teachers, starts and feedback vectors.
    """

    draws: int = 40


CONFIGS = {
    "quick": Config(),
    "paper": Config(input_dim=1000, end_time=2000.0, late_time=300_000.0, measurements=60, seeds=10, draws=60),
}
ON_DATASET: dict[str, dict[str, Config]] = {}  # inputs are Gaussian
# Where the readout is said to turn to the feedback first.
FROM_NOTHING = tuple(name for name, each in VARIATIONS.items() if each.start in ("small", "zero"))
# Backprop does not move from zero weights; its cosine is then no number.
BESIDE_BACKPROP = tuple(name for name in FROM_NOTHING if VARIATIONS[name].start != "zero")
ERF = tuple(name for name, each in VARIATIONS.items() if each.activation == "erf")
ALIGNED = 0.95  # as in two-phases
HINDERED = 0.1  # the cosine from a large readout is random, and often near one by chance
AGREEMENT = 0.05  # as in two-phases
SHARE = 0.75  # of draws; of 40 draws, five may miss
SOLVED = 1e-3  # of ε_g: an informed student that leaves its teacher has arrived elsewhere


def jobs(config: Config) -> list[Students]:
    """Return a job for every draw."""
    return jobs_on_grid(Students, config, draw=range(config.draws))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the draws side by side."""
    return on_grid(results, draw=config.draws).transpose("variation", "draw", ...)


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test what aligns, theory beside simulation, and what decides the solution; the weakest variation decides."""
    return [*_alignment(dataset), *_agreement(dataset), *_solutions(dataset), *_noise(dataset), _recovery(dataset)]


def _alignment(dataset: xr.Dataset) -> list[Verdict]:
    """Test whether the readout turns to the feedback first, and what prevents it."""
    simulated = _early(dataset, "simulation").mean("seed", skipna=False)
    theory = _early(dataset, "theory").sel(rule="dfa")
    control = early_overlap(dataset.generalisation_error_theory, dataset.overlap_theory).sel(rule="backprop")
    beyond = theory - control
    draw = "a draw of teacher, start and feedback"
    of_runs = f"{draw}; {_simulated(dataset)}"
    own, large = (dataset.sel(variation=name) for name in ("own readout", "large readout"))
    # The smallest cosine is the largest with its sign turned.
    smallest = -early_overlap(own.generalisation_error_simulation, -own.overlap_simulation)
    learned = early_overlap(own.generalisation_error_simulation, own.overlap_simulation, learning=True) > -1
    hindered = early_overlap(large.generalisation_error_simulation, large.overlap_simulation)
    return [
        weakest_of(
            "from small or zero weights: the largest cos(v, F) before ε_g has halved (weakest variation)",
            {name: simulated.sel(variation=name) for name in FROM_NOTHING}, ALIGNED, sample=of_runs,
        ),
        weakest_of(
            "that cosine under DFA minus the same under backprop from the same start (weakest variation)",
            {name: beyond.sel(variation=name) for name in BESIDE_BACKPROP}, 0.2, sample=f"{draw}, theory",
        ),
        Verdict.of_difference(
            "a large initial readout hinders it: that cosine from a small start minus that from a large readout",
            simulated.sel(variation="plain"), hindered.mean("seed", skipna=False), HINDERED, sample=of_runs,
        ),
        Verdict.of_mean(
            "feedback equal to the large initial readout: the smallest cos(v, F) before ε_g has halved",
            smallest.where(learned, -1.0).mean("seed"), ALIGNED, sample=of_runs,
        ),
    ]  # fmt: skip


def _early(dataset: xr.Dataset, kind: str) -> xr.DataArray:
    """Return the largest cosine before the error has halved; −1 for erf students whose error never does.

    A ReLU student cannot learn where its feedback lacks a sign, but its readout turns to the feedback first all the
    same.
    """
    curves = [dataset[f"{name}_{kind}"] for name in QUANTITIES]
    of_erf = dataset.variation.isin(ERF)
    return early_overlap(*curves, learning=True).where(of_erf, early_overlap(*curves))


def _agreement(dataset: xr.Dataset) -> list[Verdict]:
    """Compare the mean simulated run with the theory under DFA: the distance of both curves, mean over times."""
    erf = dataset.sel(rule="dfa", variation=list(ERF))
    distances = {name: distance(erf, name).isel(time=slice(1, None)).mean("time", skipna=False) for name in QUANTITIES}
    return [
        weakest_of(
            f"erf: the equations of N → ∞ describe {words}: mean distance of simulation and theory (weakest variation)",
            {variation: distances[name].sel(variation=variation) for variation in ERF},
            AGREEMENT,
            "below",
            sample=f"a draw; {_simulated(dataset)}, then mean over times",
        )
        for name, words in QUANTITIES.items()
    ]


def _solutions(dataset: xr.Dataset) -> list[Verdict]:
    """Test what decides the solution that an erf student takes."""
    signs = ((np.sign(dataset.late_readout) == np.sign(dataset.feedback)) | dataset.feedback.isnull()).all("unit")
    taken, no_unit = dataset.taken, dataset.feedback.isnull()
    same = abs(taken.sel(variation="zero") - taken.sel(variation="plain")) < 0.5
    same = same | no_unit.sel(variation="plain", drop=True)
    kept = ((taken == dataset.unit + 1) | no_unit).all("unit")
    arrived = (dataset.late_error < SOLVED).sel(variation=["informed", "informed, turned"]).all("variation")
    decided = kept.sel(variation="informed") & ~kept.sel(variation="informed, turned")
    decided = decided & signs.sel(variation="informed, turned")
    draw = "a draw of teacher, start and feedback, theory"
    return [
        weakest(
            Verdict.of_share(
                "erf: from any start but an informed one the readout ends with the signs of F (share, weakest "
                "variation)",
                signs.sel(variation=name), SHARE, sample=f"{draw}; {name}",
            )
            for name in ERF if VARIATIONS[name].start != "informed"
        ),
        Verdict.of_share(
            "erf: zero weights lead to the same solution as small random weights (share of draws)",
            same.all("unit"), SHARE, sample=draw,
        ),
        Verdict.of_share(
            "erf: a student that starts near its teacher stays if F has the signs of A; if one sign of F is turned, it "
            "leaves, and ends with the signs of F (share of draws in which both are so)",
            decided.values[arrived.values], SHARE,
            sample=f"{draw}, that arrives with both (ε_g below {SOLVED:g}); {dataset.sizes['draw']} were drawn",
        ),
    ]  # fmt: skip


def _noise(dataset: xr.Dataset) -> list[Verdict]:
    """Test what label noise takes from the alignment, and why."""
    of_two = dataset.isel(unit=slice(2), draw=(dataset.late_error.sel(variation="plain") < SOLVED).values)
    plain, noisy = (of_two.sel(variation=name, drop=True) for name in ("plain", "noise"))
    added = noisy.late_length - plain.late_length
    larger = abs(plain.feedback).argmax("unit", skipna=False)
    draw = (
        f"a draw of teacher, start and feedback, theory, that arrives without noise (ε_g below {SOLVED:g}); "
        f"{dataset.sizes['draw']} were drawn"
    )
    return verdicts_on(draw, {
        "label noise takes alignment: cos(v, F) at the late time, without minus with noise":
            (plain.late_overlap - noisy.late_overlap, "above", 0.0),
        "because noise lengthens first-layer weights most where F is largest: what noise adds to |w_k|² / N of the "
        "unit with the larger |F_k|, minus what it adds to the other":
            (added.isel(unit=larger) - added.isel(unit=1 - larger), "above", 0.0),
    })  # fmt: skip


def _recovery(dataset: xr.Dataset) -> Verdict:
    """Compare which ReLU students learned with the signs of their feedback."""
    relu = dataset.sel(variation="relu")
    start = relu.generalisation_error_theory.sel(rule="dfa").isel(time=0)
    learned = (relu.late_error / start < LEARNED).where(relu.late_error.notnull()).values
    feedback = relu.feedback.transpose("draw", "unit").values[:, :2]
    both = (feedback > 0).any(axis=1) & (feedback < 0).any(axis=1)
    return Verdict.of_share(
        "relu: a student of the readout (1, −1) learns exactly if its feedback has an entry of each sign (share of "
        "draws)",
        np.where(np.isnan(learned), np.nan, learned == both),
        SHARE,
        sample="a draw of teacher, start and feedback, theory",
    )


def _simulated(dataset: xr.Dataset) -> str:
    """Say how many simulated runs of a draw are averaged."""
    seeds = dataset.sizes["seed"]
    return "one simulated run" if seeds == 1 else f"mean of {seeds} simulated runs"


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    return (
        "Shallow students in variations of the setting. (a) Cosine of readout and feedback in every variation, mean "
        "and 95 % interval over draws: its largest value before ε_g has halved, under DFA (simulation) and under "
        "backprop from the same start (theory; from zero weights backprop does not move), and its value at the late "
        "time under DFA (theory). (b, c) Generalisation error and overlap of one draw under DFA; lines: theory, "
        f"points: {_simulated(dataset)}. (d) Readout and squared length of each unit's first "
        "layer at the late time under label noise, against the size of its feedback, theory; line: without noise. "
        "Where an entry of F is close to zero the student still learns. (e) First entry of the readout at the late "
        "time, of students that start near their teacher, against the first entry of F, theory. (f) Feedback of ReLU "
        "students of the readout (1, −1), filled where the student learned, theory. "
        f"{dataset.sizes['draw']} draws."
    )
