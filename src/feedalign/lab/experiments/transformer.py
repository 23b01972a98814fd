r"""Transformers: what direct feedback alignment learns in a character model, and what decides how much.

Setting: causal Transformers on the documentation that comes with Python; AdamW with warm-up and linear decay. Arms that
use no feedback have one run for each seed, which stands beside every draw of the feedback. Of several learning rates
each arm takes the one with the fewest bits on one held-out part of the text; every number that is shown or judged is
from the other part.

The quick preset has one learning rate for each arm, chosen beforehand at first seed 5 000 000. A minute is enough to
see who aligns, and who passes the control, and not for good predictions. Quick leaves out the controls of pre-norm
networks and all rules but DFA.

Source: Launay et al. (2020) train Transformers with DFA; Vaswani et al. (2017) and Radford et al. (2019) for the norms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import xarray as xr
from matplotlib.figure import Figure

from feedalign.lab.data import python_topics
from feedalign.lab.experiments.catalogue import CLAIMS
from feedalign.lab.experiments.common.grid import jobs_on_grid, on_grid
from feedalign.lab.experiments.common.recovery import recovered
from feedalign.lab.experiments.common.verdict import Verdict, verdicts_on
from feedalign.lab.experiments.transformer_figure import draw
from feedalign.lab.experiments.transformer_job import Arm, CharacterConfig, CharacterTraining, Kind, Norm, ngram_bits

NAME = "transformer"
CLAIM = CLAIMS[NAME]


@dataclass(frozen=True, kw_only=True)
class Config(CharacterConfig):
    """Everything that decides the result: besides `CharacterConfig`, the arms and the number of runs.

    Attributes:
        arms: what is trained, with the learning rate in the middle of each arm's grid.
        factors: learning rates of the grid, as multiples of the arm's own.
        seeds: initial weights, training windows and their orders.
        draws: feedback matrices for each seed.
    """

    arms: tuple[Arm, ...]
    factors: tuple[float, ...] = (1.0,)
    seeds: int
    draws: int = 1


_NORMS: tuple[Norm, ...] = ("post", "pre")
_KINDS: tuple[Kind, ...] = ("own", "shared")
_QUICK = (
    Arm("backprop", 6e-3),
    *(Arm("dfa", 6e-3, norm, feedback) for norm in _NORMS for feedback in _KINDS),
    Arm("frozen", 4e-2),
    Arm("backprop", 2e-2, blocks=0),
)
_PAPER = (
    *(Arm("backprop", 5e-3, norm) for norm in _NORMS),
    *(Arm("dfa", 5e-3, norm, feedback) for norm in _NORMS for feedback in _KINDS),
    *(Arm("direct-kolen-pollack", 5e-3, norm, feedback) for norm in _NORMS for feedback in _KINDS),
    *(Arm(rule, 5e-3, norm) for norm in _NORMS for rule in ("fa", "sign-symmetry")),
    *(Arm("frozen", 3e-2, norm) for norm in _NORMS),
    Arm("dfa", 5e-3, "post", "shared", embedding=False),
    Arm("readout-only", 1.5e-2),
    Arm("backprop", 5e-3, blocks=1),
    Arm("backprop", 3e-2, blocks=0),
)
_TEXT = f"sha256:{hashlib.sha256(python_topics().encode()).hexdigest()}"

CONFIGS = {
    "quick": Config(
        text=_TEXT, width=32, blocks=2, context=16, windows=12_000, passes=1, batch_size=8, warm_up=100, measurements=6,
        held_out=256, arms=_QUICK, seeds=5,
    ),
    "paper": Config(
        text=_TEXT, width=64, blocks=3, context=64, windows=8000, passes=3, batch_size=16, warm_up=150, measurements=11,
        held_out=256, arms=_PAPER, factors=(1 / 3, 1.0, 3.0), seeds=3, draws=2,
    ),
}  # fmt: skip
ON_DATASET: dict[str, dict[str, Config]] = {}  # the text is Python's own


def _grid(config: Config) -> list[CharacterTraining]:
    """Return the job at every point of the grid; arms without feedback have the same job at every draw."""
    arms = [replace(arm, lr=arm.lr * factor) for arm in config.arms for factor in config.factors]
    every = jobs_on_grid(CharacterTraining, config, arm=arms, seed=range(config.seeds), draw=range(config.draws))
    return [job if job.arm.draws else replace(job, draw=0) for job in every]


def jobs(config: Config) -> list[CharacterTraining]:
    """Return a job for every arm, learning rate, seed and draw; arms without feedback have one draw."""
    return list(dict.fromkeys(_grid(config)))


def gather(config: Config, results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put arms, learning rates, seeds and draws side by side, and beside them what counting predicts of the text."""
    found = dict(zip(jobs(config), results, strict=True))
    filled = [found[job] for job in _grid(config)]
    dataset = on_grid(filled, arm=len(config.arms), rate=len(config.factors), seed=config.seeds, draw=config.draws)
    dataset["lr"] = ("arm", "rate"), [[arm.lr * factor for factor in config.factors] for arm in config.arms]
    dataset["ngram_bits"] = ngram_bits(config)
    return dataset.assign_coords(arm=[arm.name for arm in config.arms])


def at_best_rates(dataset: xr.Dataset) -> xr.Dataset:
    """Return the runs of each arm at the learning rate with the fewest bits on the part that is there to choose by."""
    return dataset.isel(rate=_best_rates(dataset))


def at_the_edge(dataset: xr.Dataset) -> list[str]:
    """Return the arms whose best learning rate is the smallest or the largest of several that were tried."""
    best, rates = _best_rates(dataset), dataset.sizes["rate"]
    return [str(arm) for arm in best.arm.values[(best == 0) | (best == rates - 1)]] if rates > 1 else []


def _best_rates(dataset: xr.Dataset) -> xr.DataArray:
    """Return the number of the best learning rate, [arm]; a training that diverged is worse than any other."""
    ends = dataset.choosing_bits.isel(step=-1, drop=True).mean(("seed", "draw"), skipna=False)
    best: xr.DataArray = ends.fillna(float("inf")).argmin("rate")
    return best


def recovery(dataset: xr.Dataset, arm: str) -> xr.DataArray:
    """Return which part of backprop's gain over frozen blocks an arm reaches: 0 for frozen blocks, 1 for backprop.

    The controls have the arm's norm and seed. Without any gain of backprop's the part is not a number.
    """
    saved = -at_best_rates(dataset).bits.isel(step=-1)
    return recovered(*(saved.sel(arm=each, drop=True) for each in (arm, *_controls(arm))))


def _controls(arm: str) -> tuple[str, str]:
    """Return the names of the frozen and the backprop arm with the same norm."""
    norm = arm.rpartition(", ")[2]
    return f"frozen, {norm}", f"backprop, {norm}"


def check(dataset: xr.Dataset) -> list[Verdict]:
    """Test the five parts of the claim at the end of training; runs of one seed are paired."""
    runs = at_best_rates(dataset)
    end = runs.isel(step=-1).mean("draw", skipna=False)
    aligned = end.gradient_alignment.mean("block", skipna=False)
    shared, own = (
        aligned.sel(arm=[f"dfa, {kind}, {norm}-norm" for norm in _NORMS]).mean("arm", skipna=False)
        for kind in ("shared", "own")
    )
    best = "dfa, shared, post-norm"
    taught = runs.embedding_alignment.sel(arm=best).isel(step=slice(1, None)).mean(("step", "draw"), skipna=False)
    sample = f"a seed of initial weights, windows and their order; mean over {dataset.sizes['draw']} feedback draws"
    return verdicts_on(sample, {
        "gradients align better if all blocks share a feedback matrix: difference, mean over blocks and norms":
            (shared - own, "above", 0.0),
        "gradients align better in post-norm than in pre-norm networks: difference, mean over blocks, shared feedback":
            (aligned.sel(arm=best) - aligned.sel(arm="dfa, shared, pre-norm"), "above", 0.0),
        "DFA with shared feedback passes frozen blocks in post-norm networks: bits per character saved":
            (end.bits.sel(arm="frozen, post-norm") - end.bits.sel(arm=best), "above", 0.0),
        "DFA with shared feedback recovers half of backprop's gain over frozen blocks, in post-norm networks":
            (recovery(dataset, best).mean("draw", skipna=False), "above", 0.5),
        "DFA with shared feedback teaches the embedding, in post-norm networks: cosine of the gradient of the "
        "characters' vectors with the true one, mean over training": (taught, "above", 0.2),
    })  # fmt: skip


def plot(dataset: xr.Dataset) -> Figure:
    """Draw bits along training, gradient alignment of every block along training, and what each arm recovers."""
    arms = [str(arm) for arm in dataset.arm.values]
    judged = [arm for arm in arms if set(arms) - {arm} >= {*_controls(arm)}]
    return draw(at_best_rates(dataset), {arm: recovery(dataset, arm) for arm in judged})


def caption(dataset: xr.Dataset) -> str:
    """Say what the figure shows, and over how many runs."""
    edge, tried = "; ".join(at_the_edge(dataset)) or "none", dataset.sizes["rate"]
    rates = (
        "One learning rate for each arm."
        if tried == 1
        else f"Of {tried} learning rates each arm has the best on another part of the text; at the edge of the grid: "
        f"{edge}."
    )
    return (
        "Transformers on characters; solid: post-norm, dashed: pre-norm. (a) Bits per character on held-out text; grey "
        "lines: what counts of pairs and of triples of characters predict. (b) Gradient alignment of each block under "
        "DFA, mean over runs. (c) Part of backprop's gain over frozen blocks that each arm reaches; filled: post-norm, "
        f"open: pre-norm; bars: smallest and largest. {rates} Means over {dataset.sizes['seed']} seeds, each with "
        f"feedback drawn {dataset.sizes['draw']} time{'' if dataset.sizes['draw'] == 1 else 's'}."
    )
